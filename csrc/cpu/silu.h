// The logistic function, SiLU and its derivative.
#pragma once

#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

// 1 / (1 + exp(-u)), relative error below 2e-7 for |u| <= 87; beyond that the value at the bound.
//
// exp(-u) = 2**k * exp(-r) with k a multiple of 1/16: adding 1.5 * 2**19 leaves k in the last bits of the
// sum, whose lowest four choose 2**(k mod 1) from a table that fits one register. |r| <= ln 2 / 32, so a
// cubic is enough.
static inline __attribute__((always_inline)) Floats logistic(Floats u) {
#if FASTDIFF_LANES == 16
  constexpr Floats table{1.00000000f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
                         1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                         1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
  constexpr float magic = 786432.0f;
  u = (Floats)_mm512_range_ps((__m512)u, _mm512_set1_ps(87.0f), 0x2);  // the smaller magnitude, the sign of u
  const Floats sum = u * -1.44269504f + magic, k = sum - magic;
  const Floats r = k * 0.69314718f + u;
  const Floats power = (Floats)_mm512_permutexvar_ps((__m512i)sum, (__m512)table);
  const Floats q = (r * 0.166666667f - 0.5f) * r + 1.0f;
  const Floats e = (Floats)_mm512_scalef_ps((__m512)(power - (power * r) * q), (__m512)k);
  const Floats denominator = e + 1.0f;
  const Floats guess = (Floats)_mm512_rcp14_ps((__m512)denominator);
  return guess + guess * (1.0f - denominator * guess);
#else
  return 1.0f / (1.0f + exponential(-u));
#endif
}

// u, but not below -10000, where SiLU and its derivative have long been 0: times the logistic function's
// smallest value a number like -1e38 would not be. NaN stays NaN.
static inline __attribute__((always_inline)) Floats not_far_below(Floats u) {
#if FASTDIFF_LANES == 16
  return (Floats)_mm512_max_ps(_mm512_set1_ps(-1e4f), (__m512)u);
#else
  return u < -1e4f ? Floats{} - 1e4f : u;
#endif
}

static inline __attribute__((always_inline)) Floats silu(Floats u) {
  return not_far_below(u) * logistic(u);
}

// d silu / du
static inline __attribute__((always_inline)) Floats silu_slope(Floats u) {
  const Floats s = logistic(u);
  return s * (not_far_below(u) * (1.0f - s) + 1.0f);
}

}  // namespace fastdiff::FASTDIFF_ISA
