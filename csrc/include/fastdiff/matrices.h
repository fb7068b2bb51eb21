// A tensor (..., rows, width) of any strides as matrices, one for each index of its leading dimensions.
#pragma once

#include <cstdint>

#include "fastdiff/tile.h"

namespace fastdiff {

struct Matrices {
  const void* data = nullptr;
  Element element = Element::f32;
  int64_t count = 1;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t row_stride = 0;
  int64_t step = 1;  // elements between neighbours of one row
  int dims = 0;      // leading dimensions, innermost last
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};

  // Elements from the start of the tensor to the start of a matrix.
  int64_t offset(int64_t matrix) const {
    int64_t at = 0;
    for (int d = dims - 1; d >= 0; --d) {
      at += matrix % sizes[d] * strides[d];
      matrix /= sizes[d];
    }
    return at;
  }

  bool plain() const { return element == Element::f32 && step == 1; }
};

}  // namespace fastdiff
