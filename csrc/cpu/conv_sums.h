// The end of a convolution: products to outputs, what is added to them, and the statistics of a stretch.
#pragma once

#include "fastdiff/conv3x3.h"
#include "panels.h"
#include "winograd.h"

namespace fastdiff::FASTDIFF_ISA {

// Output channels first ... first + count - 1 of one stretch of a sample; products of tile t start at
// products + t * width. `sums` has four rows of `width` floats: what is added to every pixel, and of the
// statistics a pivot, the sum of deviations from it and the sum of their squares.
struct ConvSums {
  const Conv3x3Args& args;
  int64_t first, count, width, apart;
  float* sums;

  float* shift() const { return sums; }
  float* pivot() const { return sums + width; }
  float* deviation() const { return sums + 2 * width; }
  float* square() const { return sums + 3 * width; }
};

static void prepare_shift(const ConvSums& s, int64_t sample) {
  const Conv3x3Args& args = s.args;
  for (int64_t c = 0; c < s.count; ++c) {
    const float bias = args.bias ? args.bias[s.first + c] : 0.0f;
    s.shift()[c] = bias + (args.add ? args.add[sample * args.add_stride + s.first + c] : 0.0f);
  }
}

// Deviations are taken from the mean of the stretch's first tile, so that a mean far from zero costs nothing.
template <int Tile>
static inline __attribute__((always_inline)) void add_moments(const ConvSums& s, int64_t c, bool opens,
                                                              const Floats (&y)[Tile][Tile], int rows,
                                                              int columns) {
  if (opens) {
    Floats sum{};
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) sum += y[i][j];
    store(s.pivot() + c, sum * (1.0f / static_cast<float>(rows * columns)));
    store(s.deviation() + c, Floats{});
    store(s.square() + c, Floats{});
  }
  const Floats pivot = load(s.pivot() + c);
  Floats sum{}, square{};
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) {
      const Floats gap = y[i][j] - pivot;
      sum += gap;
      square += gap * gap;
    }
  }
  store(s.deviation() + c, load(s.deviation() + c) + sum);
  store(s.square() + c, load(s.square() + c) + square);
}

// One vector of channels of one tile, of which rows x columns outputs lie inside the map; `at` is the first.
template <int Tile, class Access>
static inline __attribute__((always_inline)) void finish_vector(const ConvSums& s, const float* m, int64_t c,
                                                                int64_t at, int rows, int columns, bool opens,
                                                                Access access) {
  const Conv3x3Args& args = s.args;
  Floats y[Tile][Tile];
  if constexpr (Tile == 1)
    y[0][0] = load(m + c);
  else
    transform_output<Tile>(m + c, s.apart, y);
  const Floats shift = load(s.shift() + c);
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) {
      const int64_t p = at + (i * args.width + j) * args.outs + c;
      Floats v = y[i][j] + shift;
      if (args.residual) v += access.template get<F32>(args.residual + p);
      y[i][j] = v * args.gain;
      access.template put<F32>(args.out + p, y[i][j]);
    }
  }
  if (args.statistics) add_moments<Tile>(s, c, opens, y, rows, columns);
}

// Asks for the lines of a tile that is finished a little later.
template <int Tile>
static inline __attribute__((always_inline)) void expect_tile(const ConvSums& s, int64_t at) {
  const Conv3x3Args& args = s.args;
  for (int i = 0; i < Tile; ++i) {
    for (int j = 0; j < Tile; ++j) {
      const int64_t p = at + (i * args.width + j) * args.outs;
      for (int64_t c = 0; c < s.count; c += 16) {
        if (args.residual) __builtin_prefetch(args.residual + p + c, 0, 3);
        __builtin_prefetch(args.out + p + c, 1, 3);
      }
    }
  }
}

template <int Tile>
static void finish_tile(const ConvSums& s, const float* m, int64_t at, bool opens) {
  each_vector(s.count,
              [&](int64_t c, auto access) { finish_vector<Tile>(s, m, c, at, Tile, Tile, opens, access); });
}
template <int Tile>
static __attribute__((noinline)) void finish_edge(const ConvSums& s, const float* m, int64_t at, int rows,
                                                  int columns, bool opens) {
  each_vector(s.count, [&](int64_t c, auto access) {
    finish_vector<Tile>(s, m, c, at, rows, columns, opens, access);
  });
}

static void write_statistics(const ConvSums& s, float* to, int64_t pixels) {
  const float count = static_cast<float>(pixels), share = 1.0f / count;
  each_vector(s.count, [&](int64_t c, auto access) {
    const Floats deviation = load(s.deviation() + c), mean = deviation * share;
    access.template put<F32>(to + s.first + c, broadcast(count));
    access.template put<F32>(to + s.args.outs + s.first + c, load(s.pivot() + c) + mean);
    const Floats squares = load(s.square() + c) - deviation * mean;
    access.template put<F32>(to + 2 * s.args.outs + s.first + c, squares > 0.0f ? squares : Floats{});
  });
}

// A stretch, whose products start at m; returns the products after it.
template <int Tile>
static const float* finish_stretch(const ConvSums& s, const Conv3x3Cut& cut, int64_t stretch,
                                   const float* m) {
  const Conv3x3Args& args = s.args;
  const int64_t sample = stretch / cut.per_sample, own = stretch % cut.per_sample;
  const int64_t top = own / cut.across * cut.tall, left = own % cut.across * cut.wide;
  const int64_t bottom = top + cut.tall < cut.rows ? top + cut.tall : cut.rows;
  const int64_t right = left + cut.wide < cut.columns ? left + cut.wide : cut.columns;
  int64_t pixels = 0;
  for (int64_t row = top; row < bottom; ++row) {
    for (int64_t column = left; column < right; ++column, m += s.width) {
      const int64_t y = row * Tile, x = column * Tile;
      const int64_t at = ((sample * args.height + y) * args.width + x) * args.outs + s.first;
      const int64_t rows = args.height - y < Tile ? args.height - y : Tile;
      const int64_t columns = args.width - x < Tile ? args.width - x : Tile;
      if (Tile > 1 && column + 1 < right) expect_tile<Tile>(s, at + Tile * args.outs);
      if (rows == Tile && columns == Tile)
        finish_tile<Tile>(s, m, at, pixels == 0);
      else
        finish_edge<Tile>(s, m, at, static_cast<int>(rows), static_cast<int>(columns), pixels == 0);
      pixels += rows * columns;
    }
  }
  if (args.statistics) write_statistics(s, args.statistics + 3 * stretch * args.outs, pixels);
  return m;
}

}  // namespace fastdiff::FASTDIFF_ISA
