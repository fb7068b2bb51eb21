// 16 bytes of float32, float16 or bfloat16, or one element where rows are not that even.
#pragma once

#include "fastdiff/four.cuh"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#endif

namespace fastdiff::device {

// Rounded to nearest, ties to even.
FASTDIFF_HD uint16_t float_to_half(float value) {
#ifdef __CUDA_ARCH__
  return __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
  if (rest > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (rest >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (rest < 0x38800000u) {  // subnormal: adding 0.5 rounds at the right place
    return static_cast<uint16_t>(sign | (as_bits(as_float(rest) + 0.5f) - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | ((rest - 0x38000000u + 0xFFFu + (rest >> 13 & 1u)) >> 13));
#endif
}

FASTDIFF_HD uint16_t float_to_bfloat(float value) {
#ifdef __CUDA_ARCH__
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  const uint32_t bits = as_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
#endif
}

FASTDIFF_HD float to_float(float value, Element) {
  return value;
}
FASTDIFF_HD float to_float(uint16_t bits, Element element) {
  return widen(bits, element);
}
FASTDIFF_HD void from_float(float value, Element, float& out) {
  out = value;
}
FASTDIFF_HD void from_float(float value, Element element, uint16_t& out) {
  out = element == Element::f16 ? float_to_half(value) : float_to_bfloat(value);
}

template <class T, int kCount>
struct alignas(kCount * sizeof(T)) Packet {
  T v[kCount];
};

}  // namespace fastdiff::device
