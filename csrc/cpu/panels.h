// Products of a few rows with a panel of packed columns, the sum over the whole depth kept in registers.
#pragma once

#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * kLanes;
constexpr int kMostRows =
    kLanes == 16 ? 14 : 6;  // accumulators, a row of the panel and a factor fill the registers

// out[r] = sum over k of rows[r][k] * panel[k], for Rows rows that are row_stride apart and V vectors. What
// is read next (`next`, a part of it per k) is asked for on the way.
template <int Rows, int V>
static void multiply_rows(const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                          float* out, int64_t out_stride, const char* next, int64_t next_step) {
  Floats sum[Rows][V] = {};
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    Floats column[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) column[v] = load(panel + v * kLanes);
#pragma GCC unroll 14
    for (int r = 0; r < Rows; ++r) {
      const Floats factor = broadcast(rows[r * row_stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += factor * column[v];
    }
    __builtin_prefetch(next, 0, 2);
    next += next_step;
    panel += V * kLanes;
  }
#pragma GCC unroll 14
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, sum[r][v]);
  }
}

using MultiplyRows = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, const char*,
                              int64_t);

template <int V>
static inline MultiplyRows multiply_of(int64_t rows) {
  static constexpr MultiplyRows kernels[] = {
      multiply_rows<1, V>,  multiply_rows<2, V>,  multiply_rows<3, V>,  multiply_rows<4, V>,
      multiply_rows<5, V>,  multiply_rows<6, V>,
#if FASTDIFF_LANES == 16
      multiply_rows<7, V>,  multiply_rows<8, V>,  multiply_rows<9, V>,  multiply_rows<10, V>,
      multiply_rows<11, V>, multiply_rows<12, V>, multiply_rows<13, V>, multiply_rows<14, V>,
#endif
  };
  return kernels[rows - 1];
}

// All `count` rows with one panel of V vectors, in register blocks of nearly equal height; asks for `bytes`
// from `next` on, which are read after it.
template <int V>
static void multiply_panel(const float* rows, int64_t row_stride, int64_t count, const float* panel,
                           int64_t depth, float* out, int64_t out_stride, const float* next, int64_t bytes) {
  const int64_t blocks = (count + kMostRows - 1) / kMostRows, step = bytes / (blocks * depth);
  const char* ahead = reinterpret_cast<const char*>(next);
  for (int64_t b = 0; b < blocks; ++b, ahead += depth * step) {
    const int64_t first = count * b / blocks, here = count * (b + 1) / blocks - first;
    multiply_of<V>(here)(rows + first * row_stride, row_stride, panel, depth, out + first * out_stride,
                         out_stride, ahead, step);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
