// What kernels work on: samples cut into tiles. A tile stays in the first-level cache of a CPU; on a GPU it
// is a block's.
#pragma once

#include <cstdint>

namespace fastdiff {

constexpr int kTile = 1024;
constexpr int kMaxDims = 8;

enum class Element : int { f32, f16, bf16 };

// A tensor (B, ...) in any strides; sizes and strides of one sample, innermost last, neighbours merged where
// dense.
struct Source {
  const void* data = nullptr;
  Element element = Element::f32;
  int64_t sample_stride = 0;
  int dims = 0;
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};

  explicit operator bool() const { return data != nullptr; }
};

// B samples of `count` elements in row-major order, `tiles()` tiles each.
struct Samples {
  int64_t batch = 0;
  int64_t count = 0;

  int64_t tiles() const { return (count + kTile - 1) / kTile; }
};

// The part of a sample that one tile covers.
struct Tile {
  int64_t sample;
  int64_t begin;
  int count;

  Tile(const Samples& samples, int64_t index)
      : sample(index / samples.tiles()), begin(index % samples.tiles() * kTile) {
    const int64_t left = samples.count - begin;
    count = static_cast<int>(left < kTile ? left : kTile);
  }
};

}  // namespace fastdiff
