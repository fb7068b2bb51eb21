// Arguments of the normalisations; `pixels` are the positions that share a channel.
#pragma once

#include <cstdint>

#include "fastdiff/tile.h"

namespace fastdiff {

// A dense (B, C, ...) tensor: pixels innermost, or (channels_last) channels innermost.
struct FeatureMap {
  int64_t batch = 0, channels = 0, pixels = 0;
  bool channels_last = false;
  Element element = Element::f32;
};

// Per channel (C,) or per sample and channel (B, C) with rows `stride` apart; null: 1 for factors, else 0.
struct ChannelFactors {
  const float *weight = nullptr, *bias = nullptr;
  const float *scale = nullptr, *shift = nullptr;
  int64_t scale_stride = 0, shift_stride = 0;
};

// What is kept of a group for the backward pass: mean as a sum of two floats, 1 / standard deviation.
enum GroupStatistics : int { k_mean = 0, k_mean_rest = 1, k_reciprocal = 2, k_statistics = 3 };

struct GroupNormArgs {
  FeatureMap map;
  ChannelFactors factors;
  int64_t groups = 1;
  float eps = 0.0f;
  bool activate = true;
  const void* x = nullptr;
  void* out = nullptr;          // forward: y; backward: the gradient of x
  float* statistics = nullptr;  // (B, G, 3)
  float* scratch = nullptr;     // (B, C, kGroupNormScratch)
  const void* gradient = nullptr;
  float* sums = nullptr;  // backward, (2, B, C): sum of du, sum of du * normalised x
};
constexpr int kGroupNormScratch = 6;

struct RmsNormArgs {
  FeatureMap map;
  ChannelFactors factors;
  float eps = 0.0f;
  bool activate = true;
  const void* x = nullptr;
  void* out = nullptr;
  const void* gradient = nullptr;
  float* sums = nullptr;  // backward, (units, 2, C)
};
// Floats of scratch space of one thread, per channel.
constexpr int kRmsNormScratch = 2 + 2 * 16 + 2 * 16;

// Work of one thread at a time. Sizes depend on the shape of one sample alone, so that neither the batch nor
// the number of threads changes a bit of the result.

// Whole groups that one unit of a channels_last map takes: whole vectors of channels, at least 64 of them.
static inline int64_t groups_per_unit(const GroupNormArgs& args) {
  if (!args.map.channels_last) return 1;
  const int64_t width = args.map.channels / args.groups;
  int64_t step = 1;
  while (step < 16 && step * width % 16 != 0) step *= 2;
  int64_t count = step;
  while (count * width < 64) count += step;
  return count < args.groups ? count : args.groups;
}
static inline int64_t units_per_sample(const GroupNormArgs& args) {
  const int64_t count = groups_per_unit(args);
  return (args.groups + count - 1) / count;
}

// Pixels that one unit of the RMS norm takes: near 16384 elements, a multiple of 64.
static inline int64_t pixels_per_unit(const FeatureMap& map) {
  const int64_t wanted = 16384 / (map.channels > 0 ? map.channels : 1) / 64 * 64;
  return wanted < 64 ? 64 : wanted;
}
static inline int64_t units_per_sample(const FeatureMap& map) {
  return (map.pixels + pixels_per_unit(map) - 1) / pixels_per_unit(map);
}

}  // namespace fastdiff
