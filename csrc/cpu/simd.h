// Vectors of float and 32-bit words for whatever instruction set this file is compiled for.
//
// Each source of csrc/cpu is compiled once per instruction set with FASTDIFF_ISA naming it; everything here lives in
// that namespace and nothing comes from the C++ library, so that the linker cannot mix code of two sets.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>
#define FASTDIFF_LANES 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define FASTDIFF_LANES 8
#else
#define FASTDIFF_LANES 4
#endif

#ifndef FASTDIFF_ISA
#error "compile with -DFASTDIFF_ISA=<name>"
#endif

namespace fastdiff::FASTDIFF_ISA {

constexpr int kLanes = FASTDIFF_LANES;

typedef float Floats __attribute__((vector_size(4 * FASTDIFF_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * FASTDIFF_LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * FASTDIFF_LANES)));

static inline Floats broadcast(float value) { return value - Floats{}; }
static inline Words broadcast_word(uint32_t value) { return value - Words{}; }

static inline Floats load(const float* p) {
  Floats v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, Floats v) { __builtin_memcpy(p, &v, sizeof v); }

// The first n lanes; the others are 0.
static inline Floats load_first(const float* p, int n) {
  Floats v{};
  __builtin_memcpy(&v, p, 4 * static_cast<unsigned>(n));
  return v;
}
static inline void store_first(float* p, Floats v, int n) { __builtin_memcpy(p, &v, 4 * static_cast<unsigned>(n)); }

static inline Floats as_floats(Ints v) { return (Floats)v; }  // the same bits
static inline Ints as_ints(Floats v) { return (Ints)v; }
static inline Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }
static inline Ints to_ints(Floats v) { return __builtin_convertvector(v, Ints); }

// mask lanes are all ones or all zeros.
static inline Floats select(Ints mask, Floats yes, Floats no) {
  return as_floats((mask & as_ints(yes)) | (~mask & as_ints(no)));
}
// NaN stays NaN.
static inline Floats clamp(Floats v, Floats low, Floats high) {
  return select(v < low, low, select(v > high, high, v));
}

static inline Floats square_root(Floats v) {
#if FASTDIFF_LANES == 16
  return (Floats)_mm512_sqrt_ps((__m512)v);
#elif FASTDIFF_LANES == 8
  return (Floats)_mm256_sqrt_ps((__m256)v);
#else
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

// High and low words of the 64-bit products a * k.
static inline void multiply(Words a, uint32_t k, Words& high, Words& low) {
#if FASTDIFF_LANES == 16
  const __m512i x = (__m512i)a, factor = _mm512_set1_epi64(k);
  const __m512i even = _mm512_mul_epu32(x, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  high = (Words)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
  low = (Words)_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32));
#elif FASTDIFF_LANES == 8
  const __m256i x = (__m256i)a, factor = _mm256_set1_epi64x(k);
  const __m256i even = _mm256_mul_epu32(x, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), factor);
  high = (Words)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  low = (Words)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
#else
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t product = static_cast<uint64_t>(a[i]) * k;
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
#endif
}

// a0 b0 a1 b1 ... of the lower and of the upper halves.
#if FASTDIFF_LANES == 16
static inline Floats interleave_low(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}
static inline Floats interleave_high(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}
#elif FASTDIFF_LANES == 8
static inline Floats interleave_low(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{0, 8, 1, 9, 2, 10, 3, 11});
}
static inline Floats interleave_high(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{4, 12, 5, 13, 6, 14, 7, 15});
}
#else
static inline Floats interleave_low(Floats a, Floats b) { return __builtin_shuffle(a, b, Ints{0, 4, 1, 5}); }
static inline Floats interleave_high(Floats a, Floats b) { return __builtin_shuffle(a, b, Ints{2, 6, 3, 7}); }
#endif

// Polynomials fitted to the stated range by weighted least squares (Lawson); relative error below 6e-9.
static inline Floats natural_log(Floats v) {  // positive normal numbers
  const Ints offset = as_ints(broadcast(0.70710678f));
  const Ints bits = as_ints(v) - offset;
  const Floats exponent = to_floats(bits >> 23);
  const Floats f = as_floats((bits & 0x7FFFFF) + offset) - 1.0f;  // in [sqrt(1/2) - 1, sqrt(2) - 1)
  Floats p = -7.634493017e-02f * f + 1.276157564e-01f;
  p = p * f - 1.316018306e-01f;
  p = p * f + 1.420175823e-01f;
  p = p * f - 1.662335730e-01f;
  p = p * f + 2.000122687e-01f;
  p = p * f - 2.500082104e-01f;
  p = p * f + 3.333333171e-01f;
  const Floats square = f * f;
  return exponent * 0.693359375f + (f + (square * (f * p - 0.5f) + exponent * -2.12194440e-4f));
}

// cos and sin of 2 pi v for v in (0, 1); the reduction to an eighth of a turn is exact.
static inline void cos_sin_turns(Floats v, Floats& cos, Floats& sin) {
  const Ints quarter = to_ints(v * 4.0f + 0.5f);
  const Floats r = v * 4.0f - to_floats(quarter), z = r * r;
  Floats s = -4.602176996e-03f * z + 7.968022807e-02f;
  s = s * z - 6.459634786e-01f;
  s = (s * z + 1.570796322e+00f) * r;
  Floats c = 9.040216688e-04f * z - 2.086028851e-02f;
  c = c * z + 2.536692440e-01f;
  c = c * z - 1.233700543e+00f;
  c = c * z + 1.0f;
  const Ints odd = (quarter & 1) != 0;
  cos = as_floats(as_ints(select(odd, s, c)) ^ (((quarter + 1) & 2) << 30));
  sin = as_floats(as_ints(select(odd, c, s)) ^ ((quarter & 2) << 30));
}

static inline Floats exponential(Floats v) {  // clamped to the range of normal float32
  v = clamp(v, broadcast(-87.0f), broadcast(88.0f));
  const Floats scaled = v * 1.44269504f;
  const Ints k = to_ints(scaled + select(scaled < 0.0f, broadcast(-0.5f), broadcast(0.5f)));
  const Floats whole = to_floats(k);
  const Floats r = (v - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Floats p = broadcast(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * as_floats((k + 127) << 23);
}

}  // namespace fastdiff::FASTDIFF_ISA
