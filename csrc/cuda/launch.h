// Launching a kernel on torch's current stream, through the stable ABI.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../bindings/tensors.h"
#include "fastdiff/four.cuh"

namespace fastdiff {

inline cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == AOTI_TORCH_SUCCESS,
                  "fastdiff: torch has no current CUDA stream");
  return static_cast<cudaStream_t>(stream);
}

// One block per tile of each sample, on the device and the current stream of a tensor.
template <class Args>
void launch(void (*kernel)(Args), const std::type_identity_t<Args>& args, const Samples& samples,
            const Tensor& where) {
  const int64_t blocks = samples.batch * samples.tiles();
  if (blocks == 0) return;
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), "fastdiff: samples must have fewer than 2**31 tiles of ",
                  kTile, " elements together, got ", blocks);
  const auto index = static_cast<int32_t>(where.get_device());
  const torch::stable::accelerator::DeviceGuard guard(index);
  kernel<<<static_cast<unsigned>(blocks), device::kThreads, 0, current_stream(index)>>>(args);
  const cudaError_t status = cudaGetLastError();
  STD_TORCH_CHECK(status == cudaSuccess, "fastdiff: the launch failed: ", cudaGetErrorString(status));
}

}  // namespace fastdiff
