// fastdiff::vq_nearest_cuda, the CUDA backend of fastdiff/ops/vq_nearest.py.
#include "fastdiff/vq_nearest.cuh"

#include <limits>

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
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), "vq_nearest: z has too many rows");
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
  args.z = rows_of(z, "z");
  args.codes = rows_of(codebook, "codebook");
  const int64_t rows = args.z.count, codes = args.codes.count;
  STD_TORCH_CHECK(
      codebook.dim() == 2 && codes > 0 && codes <= std::numeric_limits<int32_t>::max() - device::kSearchCodes,
      "vq_nearest: codebook must be (codes, width) with at least one code");
  STD_TORCH_CHECK(args.z.width == args.codes.width && args.z.width > 0,
                  "vq_nearest: z must have the width of the codebook");
  STD_TORCH_CHECK(z.get_device() == codebook.get_device(), "vq_nearest: z must be where the codebook is");
  check_dense(index, "index", ScalarType::Long);
  STD_TORCH_CHECK(index.numel() == rows, "vq_nearest: index must have one number per row");
  args.index = static_cast<int64_t*>(index.mutable_data_ptr());
  if (distance.has_value()) {
    check_dense(*distance, "distance", ScalarType::Float);
    STD_TORCH_CHECK(distance->numel() == rows, "vq_nearest: distance must have one number per row");
    args.distance = static_cast<float*>(distance->mutable_data_ptr());
  }
  if (quantised.has_value()) {
    check_dense(*quantised, "quantised", codebook.scalar_type());
    STD_TORCH_CHECK(quantised->numel() == z.numel(), "vq_nearest: quantised must have the shape of z");
    args.quantised = quantised->mutable_data_ptr();
  }
  if (counts.has_value()) {
    check_dense(*counts, "counts", ScalarType::Long);
    STD_TORCH_CHECK(counts->dim() == 1 && counts->numel() == codes, "vq_nearest: counts must be (codes,)");
    args.counts = static_cast<int64_t*>(counts->mutable_data_ptr());
  }
  args.pivot = dense_floats(pivot, "pivot", args.z.width);
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
