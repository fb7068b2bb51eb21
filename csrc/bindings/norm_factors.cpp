// fastdiff::norm_factors_cpp, the C++ backend of fastdiff/ops/norm_factors.py, and affine_factors_cpp, the
// same for what follows an RMS norm.
#include "fastdiff/cpu_kernels.h"
#include "statistics.h"
#include "tape.h"

namespace fastdiff {
namespace {

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
    torch::stable::parallel_for(0, batch, grain_of(numbers), [&args](int64_t begin, int64_t end) {
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
  m.def(
      "norm_factors_cpp(Tensor(a!) out, Tensor statistics, Tensor? statistics2, int groups, Tensor? weight, "
      "Tensor? bias, Tensor? scale, Tensor? shift, float eps) -> ()");
  m.def("affine_factors_cpp(Tensor(a!) out, Tensor? weight, Tensor? scale, Tensor? shift) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("norm_factors_cpp", TORCH_BOX(&norm_factors));
  m.impl("affine_factors_cpp", TORCH_BOX(&affine_factors));
}

}  // namespace fastdiff
