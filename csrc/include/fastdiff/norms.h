// Arguments of the normalisations; `pixels` are the positions that share a channel.
#pragma once

#include <cstdint>

#include "fastdiff/host_device.h"
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

// A variance or a norm, NaN where it is infinite because squares do not fit float32: 1 / infinity would be 0
// and the result a finite, wrong number. Static, so that the linker cannot mix code of two instruction sets.
template <class Number>
static FASTDIFF_HD Number unless_infinite(Number value) {
  return value + (value - value);
}

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
  float* scratch = nullptr;     // (B, kGroupNormArrays, C)
  float* partials = nullptr;    // (B, parts_per_sample, kGroupNormPartials, C), where channels are last
  const void* gradient = nullptr;
  float* sums = nullptr;  // backward, (2, B, C): sum of du, sum of du * normalised x
};
constexpr int kGroupNormArrays = 5, kGroupNormPartials = 3;

// The work is cut into parts: a group of a sample, or (channels last) a stretch of its pixels. A group is
// done in one go. With channels last the parts of a sample meet once, between the pass that measures and the
// pass that writes; `whole` does that for samples begin ... end - 1, the other phases leave parts of one
// sample to several threads.
enum class Phase : int { whole, prepare, first, middle, last };

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

// Pixels of a part where channels are last: near 16384 elements, a multiple of 16.
static inline int64_t pixels_per_part(const FeatureMap& map) {
  const int64_t wanted = 16384 / (map.channels > 0 ? map.channels : 1) / 16 * 16;
  return wanted < 16 ? 16 : wanted;
}
static inline int64_t parts_per_sample(const GroupNormArgs& args) {
  if (!args.map.channels_last) return args.groups;
  return (args.map.pixels + pixels_per_part(args.map) - 1) / pixels_per_part(args.map);
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
