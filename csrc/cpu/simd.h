// Vectors of float and 32-bit words for whatever instruction set this file is compiled for.
//
// Each source of csrc/cpu is compiled once per instruction set with FASTDIFF_ISA naming it; everything here
// lives in that namespace and nothing comes from the C++ library, so that the linker cannot mix code of two
// sets.
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
typedef uint64_t Longs __attribute__((vector_size(4 * FASTDIFF_LANES)));

static inline Floats broadcast(float value) {
  return value - Floats{};
}
static inline Longs broadcast_long(uint64_t value) {
  return value - Longs{};
}

static inline Floats load(const float* p) {
  Floats v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, Floats v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// The first n lanes; the others are 0.
static inline Floats load_first(const float* p, int n) {
  Floats v{};
  __builtin_memcpy(&v, p, 4 * static_cast<unsigned>(n));
  return v;
}
static inline void store_first(float* p, Floats v, int n) {
  __builtin_memcpy(p, &v, 4 * static_cast<unsigned>(n));
}

static inline Floats as_floats(Ints v) {
  return (Floats)v;
}  // the same bits
static inline Ints as_ints(Floats v) {
  return (Ints)v;
}
static inline Floats to_floats(Ints v) {
  return __builtin_convertvector(v, Floats);
}
static inline Ints to_ints(Floats v) {
  return __builtin_convertvector(v, Ints);
}

// NaN stays NaN: min and max return their second operand when one is NaN.
static inline Floats clamp(Floats v, Floats low, Floats high) {
#if FASTDIFF_LANES == 16
  return (Floats)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)v));
#elif FASTDIFF_LANES == 8
  return (Floats)_mm256_max_ps((__m256)low, _mm256_min_ps((__m256)high, (__m256)v));
#else
  v = v > high ? high : v;
  return v < low ? low : v;
#endif
}

// Asks for n floats that are used soon; a page's first lines are out of reach of the processor's own
// prefetching.
static inline void prefetch(const float* p, int n) {
  for (int i = 0; i < n; i += 16) __builtin_prefetch(p + i);
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

// 64-bit lanes whose low half holds a word; what stands in the high half does not matter.
static inline Longs multiply_low_halves(Longs a, uint32_t k) {
#if FASTDIFF_LANES == 16
  return (Longs)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(k));
#elif FASTDIFF_LANES == 8
  return (Longs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(k));
#else
  return (a & 0xFFFFFFFFu) * k;
#endif
}

static inline Longs exclusive_or(Longs a, Longs b, Longs c) {
#if FASTDIFF_LANES == 16
  return (Longs)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
  return a ^ b ^ c;
#endif
}

// The high half of each 64-bit lane, by another unit of the processor than a shift uses.
static inline Longs shuffle_down(Longs a) {
#if FASTDIFF_LANES == 16
  return (Longs)_mm512_shuffle_epi32((__m512i)a, _MM_PERM_DDBB);
#else
  return a >> 32;
#endif
}

// 64-bit lanes whose halves are the low halves of `low` and of `high`, or their high halves.
static inline Words join_low_halves(Longs low, Longs high) {
#if FASTDIFF_LANES == 16
  return (Words)_mm512_mask_moveldup_ps((__m512)low, 0xAAAA, (__m512)high);
#else
  return (Words)((low & 0xFFFFFFFFu) | high << 32);
#endif
}
static inline Words join_high_halves(Longs low, Longs high) {
#if FASTDIFF_LANES == 16
  return (Words)_mm512_mask_movehdup_ps((__m512)high, 0x5555, (__m512)low);
#else
  return (Words)(low >> 32 | (high & ~uint64_t{0xFFFFFFFFu}));
#endif
}

// (v & keep) | set
static inline Words select_bits(Words v, uint32_t keep, uint32_t set) {
#if FASTDIFF_LANES == 16
  return (Words)_mm512_ternarylogic_epi32((__m512i)v, _mm512_set1_epi32(static_cast<int>(keep)),
                                          _mm512_set1_epi32(static_cast<int>(set)), 0xEA);
#else
  return (v & keep) | set;
#endif
}

// v = 2 * fraction * 2**exponent with the fraction in [1/2, 1), for positive normal numbers.
static inline void split_float(Floats v, Floats& fraction, Floats& exponent) {
#if FASTDIFF_LANES == 16
  exponent = (Floats)_mm512_getexp_ps((__m512)v);
  fraction = (Floats)_mm512_getmant_ps((__m512)v, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_zero);
#else
  exponent = to_floats((as_ints(v) >> 23) - 127);
  fraction = as_floats((as_ints(v) & 0x7FFFFF) | 0x3F000000);
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
static inline Floats interleave_low(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{0, 4, 1, 5});
}
static inline Floats interleave_high(Floats a, Floats b) {
  return __builtin_shuffle(a, b, Ints{2, 6, 3, 7});
}
#endif

// a0 b0 a1 b1 and a2 b2 a3 b3 of each four lanes.
#if FASTDIFF_LANES == 16
static inline Floats unpack_low(Floats a, Floats b) {
  return (Floats)_mm512_unpacklo_ps((__m512)a, (__m512)b);
}
static inline Floats unpack_high(Floats a, Floats b) {
  return (Floats)_mm512_unpackhi_ps((__m512)a, (__m512)b);
}
#elif FASTDIFF_LANES == 8
static inline Floats unpack_low(Floats a, Floats b) {
  return (Floats)_mm256_unpacklo_ps((__m256)a, (__m256)b);
}
static inline Floats unpack_high(Floats a, Floats b) {
  return (Floats)_mm256_unpackhi_ps((__m256)a, (__m256)b);
}
#else
static inline Floats unpack_low(Floats a, Floats b) {
  return interleave_low(a, b);
}
static inline Floats unpack_high(Floats a, Floats b) {
  return interleave_high(a, b);
}
#endif

static inline Floats exponential(Floats v) {  // clamped to the range of normal float32
  v = clamp(v, broadcast(-87.0f), broadcast(88.0f));
  const Floats scaled = v * 1.44269504f;
  const Ints k = to_ints(scaled + (scaled < 0.0f ? broadcast(-0.5f) : broadcast(0.5f)));
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

// Loads and stores of whole vectors, and of the first `lanes` lanes at the end of an array.
struct Whole {
  static Floats load_from(const float* p) { return load(p); }
  static void store_to(float* p, Floats v) { store(p, v); }
};
struct First {
  int lanes;
  Floats load_from(const float* p) const { return load_first(p, lanes); }
  void store_to(float* p, Floats v) const { store_first(p, v, lanes); }
};

// f(i, access) for each vector of an array of `count` floats.
template <class F>
static inline __attribute__((always_inline)) void for_vectors(int count, const F& f) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, Whole{});
  if (i < count) f(i, First{count - i});
}

}  // namespace fastdiff::FASTDIFF_ISA
