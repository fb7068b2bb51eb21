// Powers of two, for softmax.
#pragma once

#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

// 2**t for t <= 0, relative error below 2e-7; 0 below 2**-126, so that no subnormal number slows anything
// down. NaN stays NaN.
//
// With 16 lanes, adding 1.5 * 2**19 leaves a multiple of 1/16 in the last bits of the sum, whose lowest four
// choose 2**(k mod 1) from a table that fits one register; a cubic is enough for what remains.
static inline __attribute__((always_inline)) Floats power_of_two(Floats t) {
#if FASTDIFF_LANES == 16
  constexpr Floats table{1.00000000f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
                         1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                         1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
  constexpr float magic = 786432.0f;
  const __mmask16 kept = _mm512_cmp_ps_mask((__m512)t, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  const Floats sum = t + magic, k = sum - magic, r = t - k;
  const Floats power = (Floats)_mm512_permutexvar_ps((__m512i)sum, (__m512)table);
  const Floats q = ((r * 5.55041087e-2f + 2.40226507e-1f) * r + 6.93147181e-1f) * r;
  return (Floats)_mm512_maskz_scalef_ps(kept, (__m512)(power + power * q), (__m512)k);
#else
  const Ints k = to_ints(t - 0.5f);
  const Floats r = t - to_floats(k);
  Floats p = broadcast(1.54035304e-4f);
  p = p * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  p = p * r + 1.0f;
  p = p * as_floats((k + 127) << 23);
  return t < -126.0f ? Floats{} : p;
#endif
}

}  // namespace fastdiff::FASTDIFF_ISA
