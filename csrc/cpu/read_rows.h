// Brings pieces of the rows of a matrix into vectors.
#pragma once

#include "fastdiff/rows.h"
#include "read_tile.h"

namespace fastdiff::FASTDIFF_ISA {

// Elements [first, first + n) of the row that starts at `offset`, n <= kLanes; the other lanes are 0.
static inline __attribute__((always_inline)) Floats read_row(const Rows& rows, int64_t offset, int64_t first,
                                                             int n) {
  if (rows.plain()) {
    const float* p = static_cast<const float*>(rows.data) + offset + first;
    return n == kLanes ? load(p) : load_first(p, n);
  }
  alignas(64) float buffer[kLanes] = {};
  for (int i = 0; i < n; ++i)
    buffer[i] = element_at(rows.data, rows.element, offset + (first + i) * rows.step);
  return load(buffer);
}

// How many of kLanes elements from `first` on lie before `end`.
static inline int lanes_left(int64_t end, int64_t first) {
  const int64_t left = end - first;
  return left >= kLanes ? kLanes : left > 0 ? static_cast<int>(left) : 0;
}

// In place: lane j of m[i] becomes lane i of m[j]. Each round is a perfect shuffle of the rows' lanes.
static inline __attribute__((always_inline)) void transpose(Floats (&m)[kLanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Floats shuffled[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      shuffled[2 * i] = interleave_low(m[i], m[i + kLanes / 2]);
      shuffled[2 * i + 1] = interleave_high(m[i], m[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) m[i] = shuffled[i];
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
