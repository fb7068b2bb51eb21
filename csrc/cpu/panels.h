// Products of a few rows with a panel of packed columns, the sum over the whole depth kept in registers.
#pragma once

#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kPanelVectors = 2;
constexpr int kPanel = kPanelVectors * kLanes;
constexpr int kMostRows =
    kLanes == 16 ? 14 : 6;  // accumulators, a row of the panel and a factor fill the registers

// What else is asked for while rows are multiplied, once per row: nothing.
struct AskNothing {
  static constexpr bool asks = false;
  void operator()(int64_t) const {}
};

// out[r] = sum over k of rows[r][k] * panel[k], for Rows rows that are row_stride apart and V vectors. What
// is read next (`next`, a part of it per k) is asked for on the way, and so is what ask(r) names. With Adds
// the sum goes on from what stands in out.
//
// Every third row has a pointer of its own, the two after it are found by the stride: 14 addresses of their
// own do not fit into the registers, and what the compiler keeps in others instead costs a place among the
// products.
template <int Rows, int V, class Ask, bool Adds>
static void multiply_rows(const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                          float* out, int64_t out_stride, const char* next, int64_t next_step,
                          const Ask& ask) {
  constexpr int parts = Ask::asks ? Rows : 1, bases = (Rows + 2) / 3;
  Floats sum[Rows][V] = {};
  if constexpr (Adds) {
#pragma GCC unroll 14
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] = load(out + r * out_stride + v * kLanes);
    }
  }
  const float* base[bases];
#pragma GCC unroll 5
  for (int i = 0; i < bases; ++i) base[i] = rows + 3 * i * row_stride;
  int64_t k = 0;
#pragma GCC unroll 1
  for (int part = 0; part < parts; ++part) {
    ask(part);
#pragma GCC unroll 1
    for (const int64_t end = depth * (part + 1) / parts; k < end; ++k) {
      Floats column[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) column[v] = load(panel + v * kLanes);
#pragma GCC unroll 14
      for (int r = 0; r < Rows; ++r) {
        const Floats factor = broadcast(base[r / 3][r % 3 * row_stride]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[r][v] += factor * column[v];
      }
#pragma GCC unroll 5
      for (int i = 0; i < bases; ++i) {
        ++base[i];
        asm("" : "+r"(base[i]));  // nothing is known of the distance between them
      }
      __builtin_prefetch(next, 0, 2);
      next += next_step;
      panel += V * kLanes;
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, sum[r][v]);
  }
}

template <class Ask>
using MultiplyRows = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, const char*,
                              int64_t, const Ask&);

template <int V, class Ask = AskNothing, bool Adds = false>
static inline MultiplyRows<Ask> multiply_of(int64_t rows) {
  static constexpr MultiplyRows<Ask> kernels[] = {
      multiply_rows<1, V, Ask, Adds>,  multiply_rows<2, V, Ask, Adds>,  multiply_rows<3, V, Ask, Adds>,
      multiply_rows<4, V, Ask, Adds>,  multiply_rows<5, V, Ask, Adds>,  multiply_rows<6, V, Ask, Adds>,
#if FASTDIFF_LANES == 16
      multiply_rows<7, V, Ask, Adds>,  multiply_rows<8, V, Ask, Adds>,  multiply_rows<9, V, Ask, Adds>,
      multiply_rows<10, V, Ask, Adds>, multiply_rows<11, V, Ask, Adds>, multiply_rows<12, V, Ask, Adds>,
      multiply_rows<13, V, Ask, Adds>, multiply_rows<14, V, Ask, Adds>,
#endif
  };
  return kernels[rows - 1];
}

// All `count` rows with one panel of V vectors, in register blocks of nearly equal height; asks for `bytes`
// from `next` on, which are read after it.
template <int V, bool Adds = false>
static void multiply_panel(const float* rows, int64_t row_stride, int64_t count, const float* panel,
                           int64_t depth, float* out, int64_t out_stride, const float* next, int64_t bytes) {
  const int64_t blocks = (count + kMostRows - 1) / kMostRows, step = bytes / (blocks * depth);
  const char* ahead = reinterpret_cast<const char*>(next);
  for (int64_t b = 0; b < blocks; ++b, ahead += depth * step) {
    const int64_t first = count * b / blocks, here = count * (b + 1) / blocks - first;
    multiply_of<V, AskNothing, Adds>(here)(rows + first * row_stride, row_stride, panel, depth,
                                           out + first * out_stride, out_stride, ahead, step, AskNothing{});
  }
}

// The same for a few rows, which wait for weights from memory: one slice of the depth after the other, short
// enough for the nearest cache, so that every block of rows finds it there and memory is asked at an even
// pace for what lies `kStreamAhead` floats on, in this panel or behind it.
constexpr int64_t kSlice = 72, kStreamAhead = 4608;
template <int V>
static void multiply_stream(const float* rows, int64_t row_stride, int64_t count, const float* panel,
                            int64_t depth, float* out, int64_t out_stride) {
  constexpr int64_t line = V * kLanes;
  for (int64_t k = 0, left = depth; left > 0; k += kSlice, left -= kSlice) {
    const int64_t here = left < kSlice ? left : kSlice, bytes = 4 * here * line;
    const float *slice = panel + k * line, *next = slice + kStreamAhead;
    if (k == 0)
      multiply_panel<V>(rows, row_stride, count, slice, here, out, out_stride, next, bytes);
    else
      multiply_panel<V, true>(rows + k, row_stride, count, slice, here, out, out_stride, next, bytes);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
