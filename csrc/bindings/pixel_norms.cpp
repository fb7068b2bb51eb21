// fastdiff::pixel_norms_cpp, the C++ backend of fastdiff/ops/pixel_norms.py.
#include "fastdiff/cpu_kernels.h"
#include "statistics.h"
#include "tape.h"

namespace fastdiff {
namespace {

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
        0, pixels, grain_of(args.channels + args.channels2),
        [&args](int64_t begin, int64_t end) { cpu_kernels().pixel_norms(args, begin, end); });
  };
  compute_or_write(call, out, x, x2);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("pixel_norms_cpp(Tensor(a!) out, Tensor x, Tensor? x2, float eps) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("pixel_norms_cpp", TORCH_BOX(&pixel_norms));
}

}  // namespace fastdiff
