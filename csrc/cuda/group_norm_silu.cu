// fastdiff::group_norm_silu_cuda, the CUDA backend of fastdiff/ops/group_norm_silu.py (forward).
#include "fastdiff/group_norm_plan.h"

#include "../bindings/feature_maps.h"
#include "launch.h"

namespace fastdiff {
namespace {

using device::GroupNormLaunch;
using Kernel = void (*)(GroupNormLaunch);

struct Kernels {
  Kernel slab, part, apply;
};

template <class T, int kCount>
Kernels kernels_of(bool last) {
  if (last) {
    return {device::group_norm_slab_kernel<T, kCount, true>, device::group_norm_part_kernel<T, kCount, true>,
            device::group_norm_apply_kernel<T, kCount, true>};
  }
  return {device::group_norm_slab_kernel<T, kCount, false>, device::group_norm_part_kernel<T, kCount, false>,
          device::group_norm_apply_kernel<T, kCount, false>};
}

Kernels kernels_of(const FeatureMap& map, int count) {
  if (map.element == Element::f32) {
    return count == 1 ? kernels_of<float, 1>(map.channels_last) : kernels_of<float, 4>(map.channels_last);
  }
  return count == 1 ? kernels_of<uint16_t, 1>(map.channels_last) : kernels_of<uint16_t, 8>(map.channels_last);
}

void check(cudaError_t status) {
  STD_TORCH_CHECK(status == cudaSuccess, "group_norm_silu: ", cudaGetErrorString(status));
}

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, index));
  return value;
}

void start(Kernel kernel, const GroupNormLaunch& args, int64_t blocks, int64_t shared, cudaStream_t stream) {
  STD_TORCH_CHECK(blocks < (int64_t{1} << 31), "group_norm_silu: x must take fewer than 2**31 blocks, got ",
                  blocks);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(device::kNormThreads);
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(args.ranks), 1, 1};
  config.attrs = &cluster;
  config.numAttrs = args.ranks > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, args));
}

void group_norm_silu(Tensor out, Tensor statistics, Tensor x, OptionalTensor weight, OptionalTensor bias,
                     OptionalTensor scale, OptionalTensor shift, int64_t groups, double eps, bool activate) {
  GroupNormLaunch args;
  args.map = feature_map_of(x, "group_norm_silu");
  const FeatureMap& map = args.map;
  STD_TORCH_CHECK(groups >= 1 && map.channels % groups == 0, "group_norm_silu: groups must divide ",
                  map.channels, " channels, got ", groups);
  STD_TORCH_CHECK(map.channels / groups <= device::kNormThreads,
                  "group_norm_silu: a group must have at most ", device::kNormThreads, " channels");
  STD_TORCH_CHECK(map.channels / groups * map.pixels < (int64_t{1} << 32),
                  "group_norm_silu: a group must have fewer than 2**32 elements");
  STD_TORCH_CHECK(eps >= 0.0, "group_norm_silu: eps must not be negative");
  args.factors = factors_of(map, weight, bias, scale, shift);
  args.groups = groups;
  args.eps = static_cast<float>(eps);
  args.activate = activate;
  args.x = x.const_data_ptr();
  args.out = same_map(out, x, map, "out");
  args.statistics = floats_of_shape(statistics, {map.batch, groups, k_statistics}, "statistics");
  check_apart("group_norm_silu", {Extent(out), Extent(statistics)},
              {Extent(x), Extent(weight), Extent(bias), Extent(scale), Extent(shift)});
  if (map.batch * map.channels * map.pixels == 0) return;
  const auto index = static_cast<int32_t>(x.get_device());
  const torch::stable::accelerator::DeviceGuard guard(index);
  const cudaStream_t stream = current_stream(index);
  const int clusters = attribute(cudaDevAttrComputeCapabilityMajor, index) >= 9 ? 8 : 1;
  const int limit = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  const auto plan = device::plan_group_norm(args, device::kNormThreads, limit, clusters);
  const Kernels kernels = kernels_of(map, plan.count);
  const int64_t slabs = map.batch * plan.slabs;
  if (plan.slab) return start(kernels.slab, args, slabs * args.ranks, plan.shared, stream);
  const Tensor partials = torch::stable::new_empty(statistics, {map.batch, groups, args.parts, 3});
  args.partials = static_cast<float*>(partials.mutable_data_ptr());
  start(kernels.part, args, slabs * args.parts, plan.shared, stream);
  start(kernels.apply, args, slabs * args.parts, plan.shared, stream);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "group_norm_silu_cuda(Tensor(a!) out, Tensor(b!) statistics, Tensor x, Tensor? weight, Tensor? bias, "
      "Tensor? scale, Tensor? shift, int groups, float eps, bool activate) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("group_norm_silu_cuda", TORCH_BOX(&group_norm_silu));
}

}  // namespace fastdiff
