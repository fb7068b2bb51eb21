// fastdiff::vq_nearest_cuda, the CUDA backend of fastdiff/ops/vq_nearest.py.
#include "fastdiff/vq_nearest.cuh"

#include "../bindings/vq_nearest.h"
#include "launch.h"

namespace fastdiff {
namespace {

using device::VqNearestLaunch;
using Kernel = void (*)(VqNearestLaunch);

template <class TZ>
Kernel kernel_of(Element codes) {
  return codes == Element::f32 ? device::vq_nearest_kernel<TZ, float>
                               : device::vq_nearest_kernel<TZ, uint16_t>;
}

Kernel kernel_of(Element z, Element codes) {
  return z == Element::f32 ? kernel_of<float>(codes) : kernel_of<uint16_t>(codes);
}

void check(cudaError_t status) {
  STD_TORCH_CHECK(status == cudaSuccess, "vq_nearest: ", cudaGetErrorString(status));
}

void start(VqNearestLaunch& args, int32_t index) {
  const torch::stable::accelerator::DeviceGuard guard(index);
  const cudaStream_t stream = current_stream(index);
  if (args.counts) {
    check(cudaMemsetAsync(args.counts, 0, static_cast<size_t>(args.codes.count) * sizeof(int64_t), stream));
  }
  const int64_t blocks = (args.z.count + device::kSearchRows - 1) / device::kSearchRows;
  if (blocks == 0) return;
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), "vq_nearest: z must have fewer than 2**31 blocks of ",
                  device::kSearchRows, " rows, got ", blocks);
  int limit = 0;
  check(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  args.slots = device::search_slots(args.z.width, limit);
  const Kernel kernel = kernel_of(args.z.element, args.codes.element);
  const auto shared = static_cast<int>(device::search_shared(args.slots));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  kernel<<<static_cast<unsigned>(blocks), device::kSearchThreads, static_cast<size_t>(shared), stream>>>(
      args);
  check(cudaGetLastError());
}

void vq_nearest(Tensor index, OptionalTensor quantised, OptionalTensor distance, OptionalTensor counts,
                Tensor z, Tensor codebook, OptionalTensor pivot) {
  VqNearestLaunch args;
  take_rows_and_codes(args, index, quantised, distance, counts, z, codebook, device::kSearchCodes);
  args.counts = counts_of(counts, args.codes.count);
  args.pivot = dense_floats(pivot, "pivot", args.z.width);
  check_apart("vq_nearest", {Extent(index), Extent(quantised), Extent(distance), Extent(counts)},
              {Extent(pivot)});
  start(args, static_cast<int32_t>(z.get_device()));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "vq_nearest_cuda(Tensor(a!) index, Tensor(b!)? quantised, Tensor(c!)? distance, Tensor(d!)? counts, "
      "Tensor z, Tensor codebook, Tensor? pivot) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("vq_nearest_cuda", TORCH_BOX(&vq_nearest));
}

}  // namespace fastdiff
