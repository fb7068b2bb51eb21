// What attention and linear_attention share: matrices of any strides as packed tiles, and the product of two.
#pragma once

#include "elements.h"
#include "fastdiff/attention.h"
#include "power_of_two.h"
#include "read_rows.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kRows = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4;  // accumulators + 3 vectors fill the registers
constexpr int kVectors = 2;
constexpr int kPitch = kAttentionQueries;  // floats between rows of a tile
constexpr float kLog2E = 1.44269504f;

template <int n>
struct Number {
  static constexpr int value = n;
};

// f(Number<n>) for n in [1, most].
template <int most, class F>
static inline void with_number(int n, const F& f) {
  if (n == most)
    f(Number<most>{});
  else if constexpr (most > 1)
    with_number<most - 1>(n, f);
}

static inline Floats larger(Floats a, Floats b) {
#if FASTDIFF_LANES == 16
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif FASTDIFF_LANES == 8
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// c[i] += sum_k a[k a_step + i] b[k], or from zero, with rows c[i] and b[k] of kPitch floats of which
// kVectors vectors are taken.
template <int rows, bool adds = true>
static void add_product(const float* a, int64_t a_step, const float* b, int64_t depth, float* c) {
  Floats sum[rows][kVectors] = {};
  if constexpr (adds) {
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] = load(c + i * kPitch + v * kLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Floats b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
      const Floats value = broadcast(a[i]);
      sum[i][0] += value * b0;
      sum[i][1] += value * b1;
    }
    a += a_step;
    b += kPitch;
  }
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(c + i * kPitch + v * kLanes, sum[i][v]);
  }
}

// One head of a tensor.
struct Matrix {
  const Matrices& of;
  int64_t at;

  Matrix(const Matrices& all, int64_t head) : of(all), at(all.offset(head)) {}

  // Elements [d, d + n) of a row, which are T; the other lanes are 0.
  template <class T>
  Floats along_row(int64_t row, int64_t d, int n) const {
    return get<T>(at + row * of.row_stride + d * of.step, of.step, n);
  }
  // Element d of the rows [row, row + n).
  template <class T>
  Floats along_column(int64_t row, int64_t d, int n) const {
    return get<T>(at + row * of.row_stride + d * of.step, of.row_stride, n);
  }

 private:
  template <class T>
  Floats get(int64_t from, int64_t stride, int n) const {
    const auto* p = static_cast<const typename T::Raw*>(of.data) + from;
    if (stride == 1) return n == kLanes ? T::load_all(p) : T::load_some(p, n);
    alignas(64) float buffer[kLanes] = {};
    for (int i = 0; i < n; ++i) buffer[i] = T::value(p[i * stride]);
    return load(buffer);
  }
};

// Lanes of `count` lines as columns: column i of `n` goes to out[i * step], times factor; missing lines are
// 0. get(line, n) reads n lanes of a line. kRows of them are the usual count beside all.
template <class Get>
static inline __attribute__((always_inline)) void turn(int count, int n, const Get& get, float factor,
                                                       float* out, int64_t step) {
  Floats lines[kLanes];
  if (count >= kRows && n == kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) lines[i] = i < kRows || i < count ? get(i, kLanes) * factor : Floats{};
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) lines[i] = i < count ? get(i, n) * factor : Floats{};
  }
  transpose(lines);
  if (n == kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(out + i * step, lines[i]);
  } else {
    for (int i = 0; i < n; ++i) store(out + i * step, lines[i]);
  }
}

// Element d of `count` rows goes to out[d * step], times factor, in kLanes lanes; missing rows are 0. A store
// may reach beyond its place; the next one, or slack at the end, takes what is too much.
static void pack(const Matrix& m, int64_t first, int count, float factor, float* out, int64_t step) {
  const int64_t width = m.of.width;
  with_element(m.of.element, [&](auto element) {
    using T = decltype(element);
    if (m.of.row_stride == 1 && count > 0) {
      for (int64_t d = 0; d < width; ++d) store(out + d * step, m.along_column<T>(first, d, count) * factor);
      return;
    }
    for (int64_t d = 0; d < width; d += kLanes)
      turn(
          count, lanes_left(width, d), [&](int i, int n) { return m.along_row<T>(first + i, d, n); }, factor,
          out + d * step, step);
  });
}

// The rows themselves, as float32: columns [column, column + columns) of `count` rows go to out[row * pitch],
// 0 beyond the last column; columns is a multiple of kLanes. Of rows nearer than that the later ones stand.
static inline void unpack(const Matrix& m, int64_t first, int count, int64_t column, int64_t columns,
                          float* out, int64_t pitch) {
  with_element(m.of.element, [&](auto element) {
    using T = decltype(element);
    if (m.of.row_stride != 1 || m.of.step == 1) {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t d = 0; d < columns; d += kLanes)
          store(out + i * pitch + d,
                m.along_row<T>(first + i, column + d, lanes_left(m.of.width, column + d)));
      }
      return;
    }
    for (int64_t d = 0; d < columns; d += kLanes) {
      for (int64_t row = 0; row < count; row += kLanes)
        turn(
            lanes_left(m.of.width, column + d), lanes_left(count, row),
            [&](int i, int n) { return m.along_column<T>(first + row, column + d + i, n); }, 1.0f,
            out + row * pitch + d, pitch);
    }
  });
}

}  // namespace fastdiff::FASTDIFF_ISA
