// pixel_norms: sqrt(C) / max(norm over channels, eps) of every pixel, see fastdiff/ops/pixel_norms.py.
#include "elements.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

static float sum_of_squares(const float* x, int64_t count) {
  Floats sum{};
  each_vector(count, [&](int64_t i, auto access) {
    const Floats v = access.template get<F32>(x + i);
    sum += v * v;
  });
  return sum_of_lanes(sum);
}

void pixel_norms(const PixelNormsArgs& args, int64_t begin, int64_t end) {
  const float root = __builtin_sqrtf(static_cast<float>(args.channels + args.channels2));
  for (int64_t p = begin; p < end; ++p) {
    float squares = sum_of_squares(args.x + p * args.channels, args.channels);
    if (args.x2) squares += sum_of_squares(args.x2 + p * args.channels2, args.channels2);
    const float norm = unless_infinite(__builtin_sqrtf(squares));
    args.out[p] = root / (norm < args.eps ? args.eps : norm);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
