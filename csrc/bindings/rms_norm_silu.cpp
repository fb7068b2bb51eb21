// fastdiff::rms_norm_silu_cpp and its gradient, the C++ backend of fastdiff/ops/rms_norm_silu.py.
#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"
#include "scratch.h"

namespace fastdiff {
namespace {

using Kernel = void (*)(const RmsNormArgs&, float* scratch, int64_t begin, int64_t end);

RmsNormArgs arguments(const Tensor& out, const Tensor& x, const OptionalTensor& weight,
                      const OptionalTensor& scale, const OptionalTensor& shift, double eps, bool activate) {
  RmsNormArgs args;
  args.map = feature_map_of(x, "rms_norm_silu");
  STD_TORCH_CHECK(eps >= 1e-37, "rms_norm_silu: eps must be at least 1e-37");
  args.factors = factors_of(args.map, weight, std::nullopt, scale, shift);
  args.eps = static_cast<float>(eps);
  args.activate = activate;
  args.x = x.const_data_ptr();
  args.out = same_map(out, x, args.map, "out");
  check_apart("rms_norm_silu", {Extent(out)}, {Extent(x), Extent(weight), Extent(scale), Extent(shift)});
  return args;
}

void run(Kernel kernel, const RmsNormArgs& args) {
  const FeatureMap& map = args.map;
  if (map.batch * map.channels * map.pixels == 0) return;
  torch::stable::parallel_for(0, map.batch * units_per_sample(map), 1,
                              [&args, kernel](int64_t begin, int64_t end) {
                                const auto scratch = line_floats(args.map.channels * kRmsNormScratch);
                                kernel(args, scratch.get(), begin, end);
                              });
}

void rms_norm_silu(Tensor out, Tensor x, OptionalTensor weight, OptionalTensor scale, OptionalTensor shift,
                   double eps, bool activate) {
  run(cpu_kernels().rms_norm_silu, arguments(out, x, weight, scale, shift, eps, activate));
}

void rms_norm_silu_backward(Tensor out, Tensor sums, Tensor gradient, Tensor x, OptionalTensor weight,
                            OptionalTensor scale, OptionalTensor shift, double eps, bool activate) {
  RmsNormArgs args = arguments(out, x, weight, scale, shift, eps, activate);
  args.gradient = same_map(gradient, x, args.map, "gradient");
  args.sums =
      floats_of_shape(sums, {args.map.batch, units_per_sample(args.map), 2, args.map.channels}, "sums");
  check_apart("rms_norm_silu", {Extent(out), Extent(sums)},
              {Extent(x), Extent(gradient), Extent(weight), Extent(scale), Extent(shift)});
  run(cpu_kernels().rms_norm_silu_backward, args);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "rms_norm_silu_cpp(Tensor(a!) out, Tensor x, Tensor? weight, Tensor? scale, Tensor? shift, float eps, "
      "bool activate) -> ()");
  m.def(
      "rms_norm_silu_backward_cpp(Tensor(a!) out, Tensor(b!) sums, Tensor gradient, Tensor x, Tensor? "
      "weight, "
      "Tensor? scale, Tensor? shift, float eps, bool activate) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("rms_norm_silu_cpp", TORCH_BOX(&rms_norm_silu));
  m.impl("rms_norm_silu_backward_cpp", TORCH_BOX(&rms_norm_silu_backward));
}

}  // namespace fastdiff
