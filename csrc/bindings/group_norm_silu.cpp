// fastdiff::group_norm_silu_cpp and its gradient, the C++ backend of fastdiff/ops/group_norm_silu.py.
#include <memory>

#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"

namespace fastdiff {
namespace {

using Kernel = void (*)(const GroupNormArgs&, Phase, int64_t begin, int64_t end);

GroupNormArgs arguments(const Tensor& out, const Tensor& statistics, const Tensor& x,
                        const OptionalTensor& weight, const OptionalTensor& bias, const OptionalTensor& scale,
                        const OptionalTensor& shift, int64_t groups, double eps, bool activate) {
  GroupNormArgs args;
  args.map = feature_map_of(x, "group_norm_silu");
  STD_TORCH_CHECK(groups >= 1 && args.map.channels % groups == 0, "group_norm_silu: groups must divide ",
                  args.map.channels, " channels, got ", groups);
  STD_TORCH_CHECK(eps >= 0.0, "group_norm_silu: eps must not be negative");
  args.factors = factors_of(args.map, weight, bias, scale, shift);
  args.groups = groups;
  args.eps = static_cast<float>(eps);
  args.activate = activate;
  args.x = x.const_data_ptr();
  args.out = same_map(out, x, args.map, "out");
  args.statistics = floats_of_shape(statistics, {args.map.batch, groups, k_statistics}, "statistics");
  check_apart("group_norm_silu", {Extent(out), Extent(statistics)},
              {Extent(x), Extent(weight), Extent(bias), Extent(scale), Extent(shift)});
  return args;
}

std::unique_ptr<float[]> floats(int64_t count) {
  return std::unique_ptr<float[]>(new float[static_cast<size_t>(count)]);
}

// Samples where they share the threads well, else parts of samples; the numbers are the same.
void run(Kernel kernel, GroupNormArgs& args) {
  const FeatureMap& map = args.map;
  if (map.batch * map.channels * map.pixels == 0) return;
  const int64_t parts = map.batch * parts_per_sample(args), threads = torch::stable::get_num_threads();
  const auto scratch = floats(map.batch * map.channels * kGroupNormArrays);
  const auto partials = map.channels_last ? floats(parts * map.channels * kGroupNormPartials) : nullptr;
  args.scratch = scratch.get();
  args.partials = partials.get();
  const auto in_parallel = [&args, kernel](Phase phase, int64_t count) {
    torch::stable::parallel_for(
        0, count, 1, [&args, kernel, phase](int64_t begin, int64_t end) { kernel(args, phase, begin, end); });
  };
  if (!map.channels_last) return in_parallel(Phase::first, parts);
  if (map.batch % threads == 0 || map.batch >= 4 * threads) return in_parallel(Phase::whole, map.batch);
  kernel(args, Phase::prepare, 0, map.batch);
  in_parallel(Phase::first, parts);
  kernel(args, Phase::middle, 0, map.batch);
  in_parallel(Phase::last, parts);
}

void group_norm_silu(Tensor out, Tensor statistics, Tensor x, OptionalTensor weight, OptionalTensor bias,
                     OptionalTensor scale, OptionalTensor shift, int64_t groups, double eps, bool activate) {
  GroupNormArgs args = arguments(out, statistics, x, weight, bias, scale, shift, groups, eps, activate);
  run(cpu_kernels().group_norm_silu, args);
}

void group_norm_silu_backward(Tensor out, Tensor sums, Tensor gradient, Tensor statistics, Tensor x,
                              OptionalTensor weight, OptionalTensor bias, OptionalTensor scale,
                              OptionalTensor shift, int64_t groups, bool activate) {
  GroupNormArgs args = arguments(out, statistics, x, weight, bias, scale, shift, groups, 0.0, activate);
  args.gradient = same_map(gradient, x, args.map, "gradient");
  args.sums = floats_of_shape(sums, {2, args.map.batch, args.map.channels}, "sums");
  check_apart("group_norm_silu", {Extent(out), Extent(sums)},
              {Extent(x), Extent(gradient), Extent(statistics), Extent(weight), Extent(bias), Extent(scale),
               Extent(shift)});
  if (x.numel() == 0) std::fill_n(args.sums, sums.numel(), 0.0f);
  run(cpu_kernels().group_norm_silu_backward, args);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "group_norm_silu_cpp(Tensor(a!) out, Tensor(b!) statistics, Tensor x, Tensor? weight, Tensor? bias, "
      "Tensor? scale, Tensor? shift, int groups, float eps, bool activate) -> ()");
  m.def(
      "group_norm_silu_backward_cpp(Tensor(a!) out, Tensor(b!) sums, Tensor gradient, Tensor statistics, "
      "Tensor x, "
      "Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, int groups, bool activate) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("group_norm_silu_cpp", TORCH_BOX(&group_norm_silu));
  m.impl("group_norm_silu_backward_cpp", TORCH_BOX(&group_norm_silu_backward));
}

}  // namespace fastdiff
