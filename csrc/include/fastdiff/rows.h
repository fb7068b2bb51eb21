// A matrix whose rows lie in the leading dimensions of a tensor of any strides.
#pragma once

#include <cstdint>

#include "fastdiff/host_device.h"
#include "fastdiff/tile.h"

namespace fastdiff {

struct Rows {
  const void* data = nullptr;
  Element element = Element::f32;
  int64_t count = 0;
  int64_t width = 0;
  int64_t step = 1;  // elements between neighbours of one row
  int dims = 0;      // leading dimensions, innermost last, neighbours merged where dense
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};

  // Elements from the start of the tensor to the start of a row.
  FASTDIFF_HD int64_t offset(int64_t row) const {
    int64_t at = 0;
    for (int d = dims - 1; d > 0; --d) {
      at += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return dims > 0 ? at + row * strides[0] : 0;
  }

  bool plain() const { return element == Element::f32 && step == 1; }
};

}  // namespace fastdiff
