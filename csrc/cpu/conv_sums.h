// The end of a convolution: products to outputs, what is added to them, and the statistics of a stretch.
#pragma once

#include "fastdiff/conv3x3.h"
#include "panels.h"
#include "winograd.h"

namespace fastdiff::FASTDIFF_ISA {

// Output channels first ... first + count - 1 of one stretch of a sample; products of tile t start at
// products + t * width. `sums` has four rows of `width` floats: what is added to every pixel, and of the
// statistics the mean, what the mean lost by rounding, and the squared deviations from it.
struct ConvSums {
  const Conv3x3Args& args;
  int64_t first, count, width, apart;
  float* sums;

  float* shift() const { return sums; }
  float* mean() const { return sums + width; }
  float* rest() const { return sums + 2 * width; }
  float* square() const { return sums + 3 * width; }
};

static void prepare_shift(const ConvSums& s, int64_t sample) {
  const Conv3x3Args& args = s.args;
  for (int64_t c = 0; c < s.count; ++c) {
    const float bias = args.bias ? args.bias[s.first + c] : 0.0f;
    s.shift()[c] = bias + (args.add ? args.add[sample * args.add_stride + s.first + c] : 0.0f);
  }
}

// How `count` outputs are joined to `before` others of their stretch.
struct Joined {
  bool opens;
  float share, part, weight;

  Joined(int64_t before, int64_t count)
      : opens(before == 0),
        share(1.0f / static_cast<float>(count)),
        part(static_cast<float>(count) / static_cast<float>(before + count)),
        weight(static_cast<float>(before) * part) {}
};

// The moments of a stretch by blocked Welford: a tile is measured from the mean of the tiles before it, the
// first from its own. The mean is a sum of two floats, so that neither a mean far from zero nor a loud pixel
// costs digits. `mean` is that of a tile's distances from the mean so far, `own` its squared deviations.
static inline __attribute__((always_inline)) void join_moments(const ConvSums& s, int64_t c,
                                                               const Joined& join, Floats mean, Floats own) {
  const Floats center = load(s.mean() + c), rest = load(s.rest() + c), moved = mean - rest;
  store(s.square() + c, load(s.square() + c) + (own + moved * moved * join.weight));
  const Floats step = rest + moved * join.part, next = center + step, kept = next - center;
  store(s.mean() + c, next);
  store(s.rest() + c, (center - (next - kept)) + (step - kept));
}
static inline __attribute__((always_inline)) void open_moments(const ConvSums& s, int64_t c, Floats mean) {
  store(s.mean() + c, mean);
  store(s.rest() + c, Floats{});
  store(s.square() + c, Floats{});
}

template <int Tile>
static inline __attribute__((always_inline)) void add_moments(const ConvSums& s, int64_t c,
                                                              const Joined& join,
                                                              const Floats (&y)[Tile][Tile], int rows,
                                                              int columns) {
  if (join.opens) {
    Floats first{};
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) first += y[i][j];
    open_moments(s, c, first * join.share);
  }
  const Floats center = load(s.mean() + c);
  Floats sum{}, square{};
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) {
      const Floats gap = y[i][j] - center;
      sum += gap;
      square += gap * gap;
    }
  }
  const Floats mean = Tile == 1 ? sum : sum * join.share;
  join_moments(s, c, join, mean, Tile == 1 ? Floats{} : square - sum * mean);
}

// One vector of channels of one tile, of which rows x columns outputs lie inside the map; `at` is the first.
template <int Tile, class Access>
static inline __attribute__((always_inline)) void finish_vector(const ConvSums& s, const float* m, int64_t c,
                                                                int64_t at, int rows, int columns,
                                                                const Joined& join, Access access) {
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
  if (args.statistics) add_moments<Tile>(s, c, join, y, rows, columns);
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
static void finish_tile(const ConvSums& s, const float* m, int64_t at, int64_t before) {
  const Joined join(before, Tile * Tile);
  each_vector(s.count,
              [&](int64_t c, auto access) { finish_vector<Tile>(s, m, c, at, Tile, Tile, join, access); });
}
template <int Tile>
static __attribute__((noinline)) void finish_edge(const ConvSums& s, const float* m, int64_t at, int rows,
                                                  int columns, int64_t before) {
  const Joined join(before, rows * columns);
  each_vector(s.count,
              [&](int64_t c, auto access) { finish_vector<Tile>(s, m, c, at, rows, columns, join, access); });
}

static void write_statistics(const ConvSums& s, float* to, int64_t pixels) {
  const Floats count = broadcast(static_cast<float>(pixels));
  each_vector(s.count, [&](int64_t c, auto access) {
    const Floats squares = load(s.square() + c);
    access.template put<F32>(to + s.first + c, count);
    access.template put<F32>(to + s.args.outs + s.first + c, load(s.mean() + c));
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
        finish_tile<Tile>(s, m, at, pixels);
      else
        finish_edge<Tile>(s, m, at, static_cast<int>(rows), static_cast<int>(columns), pixels);
      pixels += rows * columns;
    }
  }
  if (args.statistics) write_statistics(s, args.statistics + 3 * stretch * args.outs, pixels);
  return m;
}

}  // namespace fastdiff::FASTDIFF_ISA
