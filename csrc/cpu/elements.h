// Vectors of float from and to arrays of float32, float16 or bfloat16.
#pragma once

#include "read_tile.h"
#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

static inline uint16_t float_to_bfloat(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// To the nearest, ties to even. Numbers below 2**-14 are rounded by an addition to 1/2, whose last place is
// 2**-24.
static inline uint16_t float_to_half(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);
  if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < 0x38800000) {
    float small;
    __builtin_memcpy(&small, &magnitude, 4);
    small += 0.5f;
    __builtin_memcpy(&bits, &small, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3F000000));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xFFF + (magnitude >> 13 & 1)) - 0x38000000) >> 13);
}

// Each has load, store, and the same for the first n lanes (the others are 0).
struct F32 {
  using Raw = float;
  static Floats load_all(const Raw* p) { return load(p); }
  static void store_all(Raw* p, Floats v) { store(p, v); }
#if FASTDIFF_LANES == 16
  static Floats load_some(const Raw* p, int n) {
    return (Floats)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  }
  static void store_some(Raw* p, Floats v, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
  }
#else
  static Floats load_some(const Raw* p, int n) { return load_first(p, n); }
  static void store_some(Raw* p, Floats v, int n) { store_first(p, v, n); }
#endif
  static float value(Raw raw) { return raw; }
};

// The first n of 16-bit numbers by way of a buffer of whole vectors.
template <class Format>
struct Short {
  using Raw = uint16_t;
  static Floats load_some(const Raw* p, int n) {
    Raw buffer[kLanes] = {};
    for (int i = 0; i < n; ++i) buffer[i] = p[i];
    return Format::load_all(buffer);
  }
  static void store_some(Raw* p, Floats v, int n) {
    Raw buffer[kLanes];
    Format::store_all(buffer, v);
    for (int i = 0; i < n; ++i) p[i] = buffer[i];
  }
};

struct F16 : Short<F16> {
  static float value(Raw raw) { return half_to_float(raw); }
#if FASTDIFF_LANES == 16
  static Floats load_all(const Raw* p) {
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_all(Raw* p, Floats v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
  }
#elif FASTDIFF_LANES == 8 && defined(__F16C__)
  static Floats load_all(const Raw* p) {
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_all(Raw* p, Floats v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
  }
#else
  static Floats load_all(const Raw* p) {
    Floats v;
    for (int i = 0; i < kLanes; ++i) v[i] = half_to_float(p[i]);
    return v;
  }
  static void store_all(Raw* p, Floats v) {
    for (int i = 0; i < kLanes; ++i) p[i] = float_to_half(v[i]);
  }
#endif
};

struct BF16 : Short<BF16> {
  static float value(Raw raw) { return element_at(&raw, Element::bf16, 0); }
#if FASTDIFF_LANES == 16
  static Floats load_all(const Raw* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16);
  }
  static void store_all(Raw* p, Floats v) {
    const Words bits = (Words)v;
    const Words rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const Words chosen = v != v ? quiet : rounded;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16((__m512i)chosen));
  }
#else
  static Floats load_all(const Raw* p) {
    Floats v;
    for (int i = 0; i < kLanes; ++i) v[i] = value(p[i]);
    return v;
  }
  static void store_all(Raw* p, Floats v) {
    for (int i = 0; i < kLanes; ++i) p[i] = float_to_bfloat(v[i]);
  }
#endif
};

// A whole vector, or the first lanes of one.
struct All {
  template <class T>
  static Floats get(const typename T::Raw* p) {
    return T::load_all(p);
  }
  template <class T>
  static void put(typename T::Raw* p, Floats v) {
    T::store_all(p, v);
  }
};
struct Some {
  int lanes;
  template <class T>
  Floats get(const typename T::Raw* p) const {
    return T::load_some(p, lanes);
  }
  template <class T>
  void put(typename T::Raw* p, Floats v) const {
    T::store_some(p, v, lanes);
  }
};

// f(i, access) for each vector of `count` elements.
template <class F>
static inline __attribute__((always_inline)) void each_vector(int64_t count, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, All{});
  if (i < count) f(i, Some{static_cast<int>(count - i)});
}

// Calls f with the type that reads elements of this kind.
template <class F>
static inline void with_element(Element element, const F& f) {
  if (element == Element::f32) f(F32{});
  if (element == Element::f16) f(F16{});
  if (element == Element::bf16) f(BF16{});
}

static inline float sum_of_lanes(Floats v) {
#if FASTDIFF_LANES == 16
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0.0f;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
#endif
}

}  // namespace fastdiff::FASTDIFF_ISA
