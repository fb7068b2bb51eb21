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

// SiLU of u, from t = u * kSiluScale: whoever makes u by factors makes t as cheaply.
#if FASTDIFF_LANES == 16
constexpr float kSiluScale = -0.72134752f;  // -log2(e) / 2: with the whole of it the largest u would overflow

// u / (1 + 4**t). Of t, rounded down to a multiple of 1/64, five bits choose 4**t mod 2 from a table of two
// registers, and a parabola, fitted to the relative error, is enough for the rest. Relative error below
// 3e-7 + 1.2e-7 |u|, as if u had been rounded twice, for u >= -86; below that the value there. Infinity goes
// through: scalef(NaN, -infinity) is 0.
static inline __attribute__((always_inline)) Floats silu_scaled(Floats t) {
  constexpr Floats low{1.0f,        1.0218972f,  1.04427385f, 1.06714046f, 1.09050775f, 1.1143868f,
                       1.1387887f,  1.1637249f,  1.1892072f,  1.21524739f, 1.24185789f, 1.26905107f,
                       1.29683959f, 1.32523668f, 1.35425568f, 1.38390994f};
  constexpr Floats high{1.41421366f, 1.44518089f, 1.47682619f, 1.50916445f, 1.54221094f, 1.5759809f,
                        1.61049044f, 1.64575553f, 1.68179297f, 1.71861935f, 1.75625229f, 1.79470921f,
                        1.83400822f, 1.87416768f, 1.91520667f, 1.95714426f};
  const __m512 v = _mm512_min_ps(_mm512_set1_ps(62.5f), (__m512)t);  // NaN stays NaN
  const __m512i place =
      (__m512i)_mm512_add_round_ps(v, _mm512_set1_ps(196608.0f), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Floats r = (Floats)_mm512_reduce_ps(v, 6 << 4 | _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Floats power = (Floats)_mm512_permutex2var_ps((__m512)low, place, (__m512)high);
  const Floats mantissa = power + (r * power) * (r * 0.971362431f + 1.386233054f);
  const Floats e = (Floats)_mm512_scalef_ps((__m512)mantissa, _mm512_add_ps(v, v));
  const Floats denominator = e * kSiluScale + kSiluScale;
  const Floats guess = (Floats)_mm512_rcp14_ps((__m512)denominator);
  return (Floats)v * (guess + guess * (1.0f - denominator * guess));
}
#else
constexpr float kSiluScale = 1.0f;

static inline __attribute__((always_inline)) Floats silu_scaled(Floats t) {
  return not_far_below(t) * logistic(t);
}
#endif

static inline __attribute__((always_inline)) Floats silu(Floats u) {
  return silu_scaled(u * kSiluScale);
}

// d silu / du
static inline __attribute__((always_inline)) Floats silu_slope(Floats u) {
  const Floats s = logistic(u);
  return s * (not_far_below(u) * (1.0f - s) + 1.0f);
}

}  // namespace fastdiff::FASTDIFF_ISA
