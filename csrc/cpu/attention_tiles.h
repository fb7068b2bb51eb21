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

// c[i] += sum_k a[k a_step + i] b[k], with rows c[i] and b[k] of kPitch floats of which kVectors
// vectors are taken.
template <int rows>
static void add_product(const float* a, int64_t a_step, const float* b, int64_t depth, float* c) {
  Floats sum[rows][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = load(c + i * kPitch + v * kLanes);
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

  // Elements [d, d + n) of a row; the other lanes are 0.
  Floats along_row(int64_t row, int64_t d, int n) const {
    return get(at + row * of.row_stride + d * of.step, of.step, n);
  }
  // Element d of the rows [row, row + n).
  Floats along_column(int64_t row, int64_t d, int n) const {
    return get(at + row * of.row_stride + d * of.step, of.row_stride, n);
  }

 private:
  Floats get(int64_t from, int64_t stride, int n) const {
    Floats v{};
    if (stride == 1) {
      with_element(of.element, [&](auto element) {
        using T = decltype(element);
        const auto* p = static_cast<const typename T::Raw*>(of.data) + from;
        v = n == kLanes ? T::load_all(p) : T::load_some(p, n);
      });
    } else {
      alignas(64) float buffer[kLanes] = {};
      for (int i = 0; i < n; ++i) buffer[i] = element_at(of.data, of.element, from + i * stride);
      v = load(buffer);
    }
    return v;
  }
};

// Element d of `count` rows goes to out[d * step], times factor, in kLanes lanes; missing rows are 0. A store
// may reach beyond its place; the next one, or slack at the end, takes what is too much.
static void pack(const Matrix& m, int64_t first, int count, float factor, float* out, int64_t step) {
  const int64_t width = m.of.width;
  if (m.of.row_stride == 1 && count > 0) {
    for (int64_t d = 0; d < width; ++d) store(out + d * step, m.along_column(first, d, count) * factor);
    return;
  }
  for (int64_t d = 0; d < width; d += kLanes) {
    const int n = lanes_left(width, d);
    Floats lines[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) lines[i] = i < count ? m.along_row(first + i, d, n) * factor : Floats{};
    transpose(lines);
    for (int i = 0; i < n; ++i) store(out + (d + i) * step, lines[i]);
  }
}

// The rows themselves, as float32: columns [column, column + columns) of `count` rows go to out[row * pitch],
// 0 beyond the last column; columns is a multiple of kLanes.
static inline void unpack(const Matrix& m, int64_t first, int count, int64_t column, int64_t columns,
                          float* out, int64_t pitch) {
  const bool across = m.of.row_stride == 1 && m.of.step != 1;
  for (int64_t d = 0; d < columns; d += kLanes) {
    const int n = lanes_left(m.of.width, column + d);
    if (!across) {
      for (int i = 0; i < count; ++i)
        store(out + i * pitch + d, n > 0 ? m.along_row(first + i, column + d, n) : Floats{});
      continue;
    }
    for (int row = 0; row < count; row += kLanes) {
      const int rows = lanes_left(count, row);
      Floats lines[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        lines[i] = i < n ? m.along_column(first + row, column + d + i, rows) : Floats{};
      transpose(lines);
      for (int i = 0; i < rows; ++i) store(out + (row + i) * pitch + d, lines[i]);
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
