// Brings one tile of a tensor of any strides and element type into float32.
#pragma once

#include <cstdint>

#include "fastdiff/tile.h"
#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

static inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, rest = h & 0x7FFF;
  uint32_t bits;
  if (rest >= 0x7C00) {
    bits = 0x7F800000 | (rest & 0x3FF) << 13;
  } else if (rest >= 0x400) {
    bits = (rest << 13) + (112u << 23);
  } else {
    const float subnormal = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2**-24
    __builtin_memcpy(&bits, &subnormal, 4);
  }
  bits |= sign;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

static inline float element_at(const void* data, Element element, int64_t index) {
  if (element == Element::f32) return static_cast<const float*>(data)[index];
  const uint16_t raw = static_cast<const uint16_t*>(data)[index];
  if (element == Element::f16) return half_to_float(raw);
  const uint32_t bits = static_cast<uint32_t>(raw) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// `count` elements from row-major position `begin` of one sample, walked along the innermost dimension.
static void gather(const Source& source, const Tile& tile, float* buffer) {
  int64_t position[kMaxDims], rest = tile.begin, offset = tile.sample * source.sample_stride;
  for (int d = source.dims - 1; d >= 0; --d) {
    position[d] = rest % source.sizes[d];
    rest /= source.sizes[d];
    offset += position[d] * source.strides[d];
  }
  const int last = source.dims - 1;
  for (int i = 0; i < tile.count;) {
    const int64_t run_left = source.sizes[last] - position[last], tile_left = tile.count - i;
    const int run = static_cast<int>(run_left < tile_left ? run_left : tile_left);
    for (int k = 0; k < run; ++k)
      buffer[i + k] = element_at(source.data, source.element, offset + k * source.strides[last]);
    i += run;
    position[last] += run;
    offset += run * source.strides[last];
    for (int d = last; d > 0 && position[d] == source.sizes[d]; --d) {
      offset += source.strides[d - 1] - source.sizes[d] * source.strides[d];
      position[d] = 0;
      ++position[d - 1];
    }
  }
}

// Where the tile lies, if the sample is dense float32; else null.
static inline const float* dense_tile(const Source& source, const Tile& tile) {
  if (source.element != Element::f32 || source.dims != 1 || source.strides[0] != 1) return nullptr;
  return static_cast<const float*>(source.data) + tile.sample * source.sample_stride + tile.begin;
}

// The tile as float32: in place where the sample is dense float32, else copied into the buffer; null stays
// null.
static inline const float* read_tile(const Source& source, const Tile& tile, float* buffer) {
  if (!source) return nullptr;
  if (const float* dense = dense_tile(source, tile)) return dense;
  gather(source, tile, buffer);
  return buffer;
}

}  // namespace fastdiff::FASTDIFF_ISA
