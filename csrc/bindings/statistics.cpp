// fastdiff::channel_statistics_cpp, pixel_norms_cpp and norm_factors_cpp, the C++ backends of the ops of
// these names.
#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"
#include "tape.h"

namespace fastdiff {
namespace {

constexpr int64_t kThreadNumbers = 16384;  // fewer numbers do not pay for waking a thread

int64_t grain(int64_t numbers) {
  return std::max<int64_t>(1, kThreadNumbers / std::max<int64_t>(1, numbers));
}

// A float32 map whose channels are last.
FeatureMap last_map(const Tensor& x, const char* name) {
  const bool fits =
      is_here(x) && x.scalar_type() == ScalarType::Float && x.dim() == 4 && dense_in_order(x, true);
  STD_TORCH_CHECK(fits, name, " must be float32 (B, C, H, W), channels last");
  FeatureMap map;
  map.batch = x.size(0);
  map.channels = x.size(1);
  map.pixels = times(x.size(2), x.size(3));
  map.channels_last = true;
  return map;
}

void channel_statistics(Tensor statistics, Tensor x) {
  ChannelStatisticsArgs args;
  args.map = last_map(x, "channel_statistics: x");
  const int64_t most = pixels_per_part(args.map), parts = (args.map.pixels + most - 1) / most;
  args.x = static_cast<const float*>(x.const_data_ptr());
  args.statistics = floats_of_shape(statistics, {args.map.batch, parts, 3, args.map.channels},
                                    "channel_statistics: statistics");
  check_apart("channel_statistics", {Extent(statistics)}, {Extent(x)});
  const auto call = [args, units = args.map.batch * parts, least = grain(most * args.map.channels)] {
    torch::stable::parallel_for(0, units, least, [&args](int64_t begin, int64_t end) {
      cpu_kernels().channel_statistics(args, begin, end);
    });
  };
  compute_or_write(call, statistics, x);
}

void pixel_norms(Tensor out, Tensor x, OptionalTensor x2, double eps) {
  PixelNormsArgs args;
  const FeatureMap map = last_map(x, "pixel_norms: x");
  args.channels = map.channels;
  args.x = static_cast<const float*>(x.const_data_ptr());
  if (x2.has_value()) {
    const FeatureMap second = last_map(*x2, "pixel_norms: x2");
    STD_TORCH_CHECK(second.batch == map.batch && x2->size(2) == x.size(2) && x2->size(3) == x.size(3),
                    "pixel_norms: x2 must have the batch and size of x");
    args.channels2 = second.channels;
    args.x2 = static_cast<const float*>(x2->const_data_ptr());
  }
  STD_TORCH_CHECK(eps >= 0.0, "pixel_norms: eps must not be negative");
  args.eps = static_cast<float>(eps);
  args.out = floats_of_shape(out, {map.batch, x.size(2), x.size(3)}, "pixel_norms: out");
  check_apart("pixel_norms", {Extent(out)}, {Extent(x), Extent(x2)});
  const auto call = [args, pixels = map.batch * map.pixels] {
    torch::stable::parallel_for(
        0, pixels, grain(args.channels + args.channels2),
        [&args](int64_t begin, int64_t end) { cpu_kernels().pixel_norms(args, begin, end); });
  };
  compute_or_write(call, out, x, x2);
}

void read_statistics(NormFactorsArgs& args, int i, const Tensor& t, int64_t batch) {
  STD_TORCH_CHECK(t.dim() == 4 && t.size(1) > 0, "norm_factors: statistics must be (B, P, 3, C)");
  args.stretches[i] = t.size(1);
  args.channels[i] = t.size(3);
  args.statistics[i] =
      floats_of_shape(t, {batch, args.stretches[i], 3, args.channels[i]}, "norm_factors: statistics");
}

void norm_factors(Tensor out, Tensor statistics, OptionalTensor statistics2, int64_t groups,
                  OptionalTensor weight, OptionalTensor bias, OptionalTensor scale, OptionalTensor shift,
                  double eps) {
  NormFactorsArgs args;
  STD_TORCH_CHECK(statistics.dim() == 4, "norm_factors: statistics must be (B, P, 3, C)");
  FeatureMap map;
  map.batch = statistics.size(0);
  read_statistics(args, 0, statistics, map.batch);
  if (statistics2.has_value()) read_statistics(args, 1, *statistics2, map.batch);
  map.channels = args.channels[0] + args.channels[1];
  STD_TORCH_CHECK(groups >= 1 && map.channels % groups == 0, "norm_factors: groups must divide ",
                  map.channels, " channels, got ", groups);
  STD_TORCH_CHECK(eps >= 0.0, "norm_factors: eps must not be negative");
  args.groups = groups;
  args.factors = factors_of(map, weight, bias, scale, shift);
  args.eps = static_cast<float>(eps);
  args.out = floats_of_shape(out, {map.batch, 2, map.channels}, "norm_factors: out");
  check_apart(
      "norm_factors", {Extent(out)},
      {Extent(statistics), Extent(statistics2), Extent(weight), Extent(bias), Extent(scale), Extent(shift)});
  const int64_t numbers = 3 * (args.stretches[0] + args.stretches[1]) * map.channels;
  const auto call = [args, batch = map.batch, numbers] {
    torch::stable::parallel_for(0, batch, grain(numbers), [&args](int64_t begin, int64_t end) {
      cpu_kernels().norm_factors(args, begin, end);
    });
  };
  compute_or_write(call, out, statistics, statistics2, weight, bias, scale, shift);
}

// What follows an RMS norm, as factors (B, 2, C): weight * (1 + scale), and shift.
void affine_factors(Tensor out, OptionalTensor weight, OptionalTensor scale, OptionalTensor shift) {
  STD_TORCH_CHECK(out.dim() == 3, "affine_factors: out must be (B, 2, C)");
  FeatureMap map;
  map.batch = out.size(0);
  map.channels = out.size(2);
  const ChannelFactors factors = factors_of(map, weight, OptionalTensor(), scale, shift);
  float* const to = floats_of_shape(out, {map.batch, 2, map.channels}, "affine_factors: out");
  check_apart("affine_factors", {Extent(out)}, {Extent(weight), Extent(scale), Extent(shift)});
  const auto call = [factors, to, batch = map.batch, channels = map.channels] {
    for (int64_t b = 0; b < batch; ++b) {
      float *const gain = to + 2 * b * channels, *const offset = gain + channels;
      for (int64_t c = 0; c < channels; ++c) {
        gain[c] = factors.weight ? factors.weight[c] : 1.0f;
        if (factors.scale) gain[c] *= 1.0f + factors.scale[b * factors.scale_stride + c];
        offset[c] = factors.shift ? factors.shift[b * factors.shift_stride + c] : 0.0f;
      }
    }
  };
  compute_or_write(call, out, weight, scale, shift);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("channel_statistics_cpp(Tensor(a!) statistics, Tensor x) -> ()");
  m.def("pixel_norms_cpp(Tensor(a!) out, Tensor x, Tensor? x2, float eps) -> ()");
  m.def(
      "norm_factors_cpp(Tensor(a!) out, Tensor statistics, Tensor? statistics2, int groups, Tensor? weight, "
      "Tensor? bias, Tensor? scale, Tensor? shift, float eps) -> ()");
  m.def("affine_factors_cpp(Tensor(a!) out, Tensor? weight, Tensor? scale, Tensor? shift) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("channel_statistics_cpp", TORCH_BOX(&channel_statistics));
  m.impl("pixel_norms_cpp", TORCH_BOX(&pixel_norms));
  m.impl("norm_factors_cpp", TORCH_BOX(&norm_factors));
  m.impl("affine_factors_cpp", TORCH_BOX(&affine_factors));
}

}  // namespace fastdiff
