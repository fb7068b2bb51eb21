// fastdiff::group_norm_silu_cpp and its gradient, the C++ backend of fastdiff/ops/group_norm_silu.py.
#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"
#include "scratch.h"

namespace fastdiff {
namespace {

using Kernel = void (*)(const GroupNormArgs&, Phase, int64_t begin, int64_t end);

// All but the statistics.
GroupNormArgs arguments(const Tensor& out, const Tensor& x, const OptionalTensor& weight,
                        const OptionalTensor& bias, const OptionalTensor& scale, const OptionalTensor& shift,
                        int64_t groups, double eps, bool activate) {
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
  return args;
}

// Samples where they share the threads well, else parts of samples; the numbers are the same.
void run(Kernel kernel, GroupNormArgs& args) {
  const FeatureMap& map = args.map;
  if (map.batch * map.channels * map.pixels == 0) return;
  const int64_t parts = map.batch * parts_per_sample(args), threads = torch::stable::get_num_threads();
  const auto scratch = line_floats(map.batch * map.channels * kGroupNormArrays);
  const auto partials = line_floats(map.channels_last ? parts * map.channels * kGroupNormPartials : 0);
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

float* statistics_of(const Tensor& statistics, const GroupNormArgs& args) {
  return floats_of_shape(statistics, {args.map.batch, args.groups, k_statistics}, "statistics");
}

// Nobody keeps the statistics where no gradient is wanted.
void group_norm_silu(Tensor out, OptionalTensor statistics, Tensor x, OptionalTensor weight,
                     OptionalTensor bias, OptionalTensor scale, OptionalTensor shift, int64_t groups,
                     double eps, bool activate) {
  GroupNormArgs args = arguments(out, x, weight, bias, scale, shift, groups, eps, activate);
  const bool alone = !statistics.has_value() && x.numel() > 0;
  const auto own = line_floats(alone ? args.map.batch * groups * k_statistics : 0);
  args.statistics = statistics.has_value() ? statistics_of(*statistics, args) : own.get();
  check_apart("group_norm_silu", {Extent(out), Extent(statistics)},
              {Extent(x), Extent(weight), Extent(bias), Extent(scale), Extent(shift)});
  run(cpu_kernels().group_norm_silu, args);
}

// The sum over the batch of rows (B, C).
void add_rows(const float* rows, const FeatureMap& map, float* to) {
  for (int64_t c = 0; c < map.channels; ++c) {
    double total = 0.0;
    for (int64_t b = 0; b < map.batch; ++b) total += rows[b * map.channels + c];
    to[c] = static_cast<float>(total);
  }
}

// d_weight and d_bias are the gradients where there is no scale; with one the caller makes all from the sums.
void group_norm_silu_backward(Tensor out, OptionalTensor sums, OptionalTensor d_weight, OptionalTensor d_bias,
                              Tensor gradient, Tensor statistics, Tensor x, OptionalTensor weight,
                              OptionalTensor bias, OptionalTensor scale, OptionalTensor shift, int64_t groups,
                              bool activate) {
  GroupNormArgs args = arguments(out, x, weight, bias, scale, shift, groups, 0.0, activate);
  const FeatureMap& map = args.map;
  const int64_t rows = map.batch * map.channels;
  args.statistics = statistics_of(statistics, args);
  args.gradient = same_map(gradient, x, map, "gradient");
  STD_TORCH_CHECK(!scale.has_value() || !(d_weight.has_value() || d_bias.has_value()),
                  "group_norm_silu: d_weight and d_bias must be made from the sums where there is a scale");
  const bool empty = x.numel() == 0;
  const auto own = line_floats(sums.has_value() || empty ? 0 : 2 * rows);
  args.sums = sums.has_value() ? floats_of_shape(*sums, {2, map.batch, map.channels}, "sums") : own.get();
  float* const to_weight = dense_floats(d_weight, "d_weight", map.channels);
  float* const to_bias = dense_floats(d_bias, "d_bias", map.channels);
  check_apart("group_norm_silu", {Extent(out), Extent(sums), Extent(d_weight), Extent(d_bias)},
              {Extent(x), Extent(gradient), Extent(statistics), Extent(weight), Extent(bias), Extent(scale),
               Extent(shift)});
  if (empty) {
    if (sums.has_value()) std::fill_n(args.sums, 2 * rows, 0.0f);
    if (to_weight) std::fill_n(to_weight, map.channels, 0.0f);
    if (to_bias) std::fill_n(to_bias, map.channels, 0.0f);
    return;
  }
  run(cpu_kernels().group_norm_silu_backward, args);
  if (to_bias) add_rows(args.sums, map, to_bias);
  if (to_weight) add_rows(args.sums + rows, map, to_weight);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "group_norm_silu_cpp(Tensor(a!) out, Tensor(b!)? statistics, Tensor x, Tensor? weight, Tensor? bias, "
      "Tensor? scale, Tensor? shift, int groups, float eps, bool activate) -> ()");
  m.def(
      "group_norm_silu_backward_cpp(Tensor(a!) out, Tensor(b!)? sums, Tensor(c!)? d_weight, "
      "Tensor(d!)? d_bias, Tensor gradient, Tensor statistics, Tensor x, Tensor? weight, Tensor? bias, "
      "Tensor? scale, Tensor? shift, int groups, bool activate) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("group_norm_silu_cpp", TORCH_BOX(&group_norm_silu));
  m.impl("group_norm_silu_backward_cpp", TORCH_BOX(&group_norm_silu_backward));
}

}  // namespace fastdiff
