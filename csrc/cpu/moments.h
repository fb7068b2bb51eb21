// Mean and sum of squared deviations of columns of numbers, in float32, by blocked Welford.
//
// Each column is measured from the mean of its first block (`pivot`), and each block of rows from the mean so
// far: a mean far from zero costs no digits, and a block is corrected by the square of its own small offset,
// never by that of the mean.
#pragma once

#include "elements.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kBlockRows = 16;

// Per column: mean = pivot + offset; squares = sum of (x - mean)**2.
struct Moments {
  float *pivot, *offset, *squares;
};

// One block more, of `count` rows after `before` rows, for V vectors of columns; rows are `stride` elements
// apart.
template <class T, int V, class Access>
static inline __attribute__((always_inline)) void add_block(const typename T::Raw* x, int64_t before,
                                                            int count, int64_t stride, Access access,
                                                            Moments m) {
  Floats center[V], sum[V] = {}, square[V] = {};
  for (int v = 0; v < V; ++v) {
    if (before == 0) {
      Floats first{};
      for (int r = 0; r < count; ++r) first += access.template get<T>(x + r * stride + v * kLanes);
      access.template put<F32>(m.pivot + v * kLanes, first * (1.0f / static_cast<float>(count)));
      access.template put<F32>(m.offset + v * kLanes, Floats{});
      access.template put<F32>(m.squares + v * kLanes, Floats{});
    }
    center[v] =
        access.template get<F32>(m.pivot + v * kLanes) + access.template get<F32>(m.offset + v * kLanes);
  }
  for (int r = 0; r < count; ++r, x += stride) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Floats e = access.template get<T>(x + v * kLanes) - center[v];
      sum[v] += e;
      square[v] += e * e;
    }
  }
  const float share = 1.0f / static_cast<float>(count);
  const float part = static_cast<float>(count) / static_cast<float>(before + count);
  const float weight = static_cast<float>(before) * part;
  for (int v = 0; v < V; ++v) {
    float *offset = m.offset + v * kLanes, *squares = m.squares + v * kLanes;
    const Floats mean = sum[v] * share, own = square[v] - sum[v] * mean,
                 old = access.template get<F32>(offset);
    const Floats moved = mean - (old - (center[v] - access.template get<F32>(m.pivot + v * kLanes)));
    access.template put<F32>(squares, access.template get<F32>(squares) + (own + moved * moved * weight));
    access.template put<F32>(offset, old + moved * part);
  }
}

// Moments of columns, block by block in the order of memory.
template <class T>
static void column_moments(const typename T::Raw* x, int64_t rows, int64_t stride, int64_t columns,
                           Moments out) {
  const auto at = [&out](int64_t c) { return Moments{out.pivot + c, out.offset + c, out.squares + c}; };
  for (int64_t row = 0; row < rows; row += kBlockRows, x += kBlockRows * stride) {
    const int count = static_cast<int>(rows - row < kBlockRows ? rows - row : kBlockRows);
    int64_t c = 0;
    for (; c + 4 * kLanes <= columns; c += 4 * kLanes)
      add_block<T, 4>(x + c, row, count, stride, All{}, at(c));
    for (; c + kLanes <= columns; c += kLanes) add_block<T, 1>(x + c, row, count, stride, All{}, at(c));
    if (c < columns) add_block<T, 1>(x + c, row, count, stride, Some{static_cast<int>(columns - c)}, at(c));
  }
}

// Adds the columns of `more`, `rows` numbers each, to those of `all`, which have `before`; pivots stay.
static inline void merge_columns(const Moments& all, int64_t before, const Moments& more, int64_t rows,
                                 int64_t columns) {
  const float part = static_cast<float>(rows) / static_cast<float>(before + rows);
  const float weight = static_cast<float>(before) * part;
  each_vector(columns, [&](int64_t c, auto access) {
    const auto get = [&access, c](const float* p) { return access.template get<F32>(p + c); };
    const Floats offset = get(all.offset),
                 gap = (get(more.pivot) - get(all.pivot)) + (get(more.offset) - offset);
    access.template put<F32>(all.squares + c, get(all.squares) + get(more.squares) + gap * gap * weight);
    access.template put<F32>(all.offset + c, offset + gap * part);
  });
}

// Mean and sum of squared deviations of `count` numbers.
struct Spread {
  double count, mean, squares;
};

static inline Spread merge(const Spread& a, const Spread& b) {
  const double count = a.count + b.count, gap = b.mean - a.mean;
  if (count == 0.0) return a;
  return {count, a.mean + gap * (b.count / count),
          a.squares + b.squares + gap * gap * (a.count * b.count / count)};
}

// All numbers of `columns` columns of `rows` numbers each, measured from near their mean.
static inline Spread spread_of(const Moments& m, int columns, int64_t rows) {
  float near = 0.0f, mean = 0.0f, squares = 0.0f;
  for (int c = 0; c < columns; ++c) near += m.pivot[c] + m.offset[c];
  near /= static_cast<float>(columns);
  for (int c = 0; c < columns; ++c) mean += (m.pivot[c] - near) + m.offset[c];
  mean /= static_cast<float>(columns);
  for (int c = 0; c < columns; ++c) {
    const float gap = ((m.pivot[c] - near) + m.offset[c]) - mean;
    squares += m.squares[c] + static_cast<float>(rows) * gap * gap;
  }
  return {static_cast<double>(columns) * static_cast<double>(rows), static_cast<double>(near) + mean,
          squares};
}

// The same for whole vectors of columns.
template <int V>
static inline Spread spread_of_vectors(const Moments& m, int64_t rows) {
  Floats gap[V], sum{}, squares{};
  for (int v = 0; v < V; ++v) sum += load(m.pivot + v * kLanes) + load(m.offset + v * kLanes);
  const float near = sum_of_lanes(sum) / (V * kLanes);
  sum = Floats{};
  for (int v = 0; v < V; ++v) {
    gap[v] = (load(m.pivot + v * kLanes) - near) + load(m.offset + v * kLanes);
    sum += gap[v];
  }
  const float mean = sum_of_lanes(sum) / (V * kLanes);
  for (int v = 0; v < V; ++v) {
    const Floats rest = gap[v] - mean;
    squares += load(m.squares + v * kLanes) + rest * rest * static_cast<float>(rows);
  }
  return {static_cast<double>(V * kLanes) * static_cast<double>(rows), static_cast<double>(near) + mean,
          sum_of_lanes(squares)};
}

// A dense array, as columns of a vector's lanes.
template <class T>
static Spread spread_of_array(const typename T::Raw* x, int64_t count) {
  constexpr int kWide = 4 * kLanes;
  alignas(64) float pivot[kWide], offset[kWide], squares[kWide];
  const Moments m{pivot, offset, squares};
  Spread all{};
  const int64_t rows = count / kWide, rest = count - rows * kWide;
  if (rows > 0) {
    column_moments<T>(x, rows, kWide, kWide, m);
    all = spread_of_vectors<4>(m, rows);
  }
  if (rest > 0) {
    for (int i = 0; i < rest; ++i) {
      pivot[i] = T::value(x[rows * kWide + i]);
      offset[i] = squares[i] = 0.0f;
    }
    all = merge(all, spread_of(m, static_cast<int>(rest), 1));
  }
  return all;
}

}  // namespace fastdiff::FASTDIFF_ISA
