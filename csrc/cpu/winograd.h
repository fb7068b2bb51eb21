// One-dimensional transforms of Winograd's minimal filters F(m, 3), and their use on squares.
//
// F(4,3) takes the points 0, 1, -1, 1/2, -2 and infinity, whose rounding errors are smaller than those of 0,
// 1, -1, 2, -2; F(2,3) takes 0, 1, -1 and infinity. Outputs = A (G g * B d) with the matrices written out
// below.
#pragma once

#include "elements.h"

namespace fastdiff::FASTDIFF_ISA {

template <int Tile>
struct Winograd;

template <>
struct Winograd<4> {
  static constexpr int kSide = 6;
  static inline __attribute__((always_inline)) void input(const Floats (&d)[6], Floats (&v)[6]) {
    const Floats a = d[4] - d[2], b = d[3] - d[1];
    const Floats e = d[3] * 1.5f + a, f = d[2] * 1.5f + b;
    v[0] = b * 1.5f + (a + (d[0] - d[2]));
    v[1] = e + f;
    v[2] = e - f;
    v[3] = b * 2.0f + a;
    v[4] = a - b * 0.5f;
    v[5] = a * 1.5f + ((d[5] - d[3]) - b);
  }
  static inline __attribute__((always_inline)) void output(const Floats (&m)[6], Floats (&y)[4]) {
    const Floats sum = m[1] + m[2], gap = m[1] - m[2];
    y[0] = (m[0] + sum) + (m[3] + m[4]);
    y[1] = m[3] * 0.5f + (gap - m[4] * 2.0f);
    y[2] = m[3] * 0.25f + (sum + m[4] * 4.0f);
    y[3] = m[3] * 0.125f + ((gap + m[5]) - m[4] * 8.0f);
  }
  static constexpr double filter[6][3] = {{1.0, 0.0, 0.0},
                                          {1.0 / 3, 1.0 / 3, 1.0 / 3},
                                          {-1.0 / 3, 1.0 / 3, -1.0 / 3},
                                          {-16.0 / 15, -8.0 / 15, -4.0 / 15},
                                          {1.0 / 15, -2.0 / 15, 4.0 / 15},
                                          {0.0, 0.0, 1.0}};
  // The same in pairs of rows of the filter, as vectors.
  static constexpr int pairs[3][2] = {{0, 5}, {1, 2}, {3, 4}};
  template <int Pair>
  static inline __attribute__((always_inline)) void filter_pair(const Floats (&g)[3], Floats& a, Floats& b) {
    if constexpr (Pair == 0) {
      a = g[0];
      b = g[2];
    } else if constexpr (Pair == 1) {
      const Floats outer = (g[0] + g[2]) * (1.0f / 3), middle = g[1] * (1.0f / 3);
      a = middle + outer;
      b = middle - outer;
    } else {
      a = g[0] * (-16.0f / 15) - (g[1] * (8.0f / 15) + g[2] * (4.0f / 15));
      b = g[0] * (1.0f / 15) + (g[2] * (4.0f / 15) - g[1] * (2.0f / 15));
    }
  }
  static inline __attribute__((always_inline)) void filters(const Floats (&g)[3], Floats (&u)[6]) {
    filter_pair<0>(g, u[0], u[5]);
    filter_pair<1>(g, u[1], u[2]);
    filter_pair<2>(g, u[3], u[4]);
  }
};

template <>
struct Winograd<2> {
  static constexpr int kSide = 4;
  static inline __attribute__((always_inline)) void input(const Floats (&d)[4], Floats (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static inline __attribute__((always_inline)) void output(const Floats (&m)[4], Floats (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = m[3] + (m[1] - m[2]);
  }
  static constexpr double filter[4][3] = {
      {1.0, 0.0, 0.0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0.0, 0.0, 1.0}};
  static constexpr int pairs[2][2] = {{0, 3}, {1, 2}};
  template <int Pair>
  static inline __attribute__((always_inline)) void filter_pair(const Floats (&g)[3], Floats& a, Floats& b) {
    if constexpr (Pair == 0) {
      a = g[0];
      b = g[2];
    } else {
      const Floats outer = (g[0] + g[2]) * 0.5f, middle = g[1] * 0.5f;
      a = outer + middle;
      b = outer - middle;
    }
  }
  static inline __attribute__((always_inline)) void filters(const Floats (&g)[3], Floats (&u)[4]) {
    filter_pair<0>(g, u[0], u[3]);
    filter_pair<1>(g, u[1], u[2]);
  }
};

// One vector of channels of one tile: pixels `row` and `column` floats apart to positions `apart` floats
// apart.
template <int Tile, class Access>
static inline __attribute__((always_inline)) void transform_input(const float* x, const int64_t* rows,
                                                                  const int64_t* columns, float* v,
                                                                  int64_t apart, Access access) {
  constexpr int side = Winograd<Tile>::kSide;
  Floats half[side][side];
#pragma GCC unroll 6
  for (int j = 0; j < side; ++j) {
    Floats d[side], t[side];
#pragma GCC unroll 6
    for (int i = 0; i < side; ++i) d[i] = load(x + rows[i] + columns[j]);
    Winograd<Tile>::input(d, t);
#pragma GCC unroll 6
    for (int i = 0; i < side; ++i) half[i][j] = t[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < side; ++i) {
    Floats t[side];
    Winograd<Tile>::input(half[i], t);
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) access.template put<F32>(v + (i * side + j) * apart, t[j]);
  }
}

// Filters of a panel of V vectors, [tap][depth][V], to two rows of positions, [2 * side][depth][V], whose
// positions are u_apart floats apart.
template <int Tile, int Pair, int V>
static void transform_filters(const float* g, int64_t depth, float* u, int64_t u_apart) {
  constexpr int side = Winograd<Tile>::kSide;
  const int64_t apart = depth * V * kLanes;
  for (int64_t i = 0; i < apart; i += kLanes) {
    Floats a[3], b[3], t[side];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const Floats column[3] = {load(g + i + j * apart), load(g + i + (3 + j) * apart),
                                load(g + i + (6 + j) * apart)};
      Winograd<Tile>::template filter_pair<Pair>(column, a[j], b[j]);
    }
    Winograd<Tile>::filters(a, t);
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) store(u + i + j * u_apart, t[j]);
    Winograd<Tile>::filters(b, t);
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) store(u + i + (side + j) * u_apart, t[j]);
  }
}

template <int Tile>
static inline __attribute__((always_inline)) void transform_output(const float* m, int64_t apart,
                                                                   Floats (&y)[Tile][Tile]) {
  constexpr int side = Winograd<Tile>::kSide;
  Floats half[Tile][side];
#pragma GCC unroll 6
  for (int j = 0; j < side; ++j) {
    Floats d[side], t[Tile];
#pragma GCC unroll 6
    for (int i = 0; i < side; ++i) d[i] = load(m + (i * side + j) * apart);
    Winograd<Tile>::output(d, t);
#pragma GCC unroll 4
    for (int i = 0; i < Tile; ++i) half[i][j] = t[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < Tile; ++i) Winograd<Tile>::output(half[i], y[i]);
}

}  // namespace fastdiff::FASTDIFF_ISA
