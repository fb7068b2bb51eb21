// Arguments of channel_statistics, pixel_norms and norm_factors. Maps are channels last, numbers float32.
#pragma once

#include <cstdint>

#include "fastdiff/norms.h"

namespace fastdiff {

struct ChannelStatisticsArgs {
  FeatureMap map;
  const float* x = nullptr;
  float* statistics = nullptr;  // (B, stretches, 3, C), a stretch of pixels_per_part(map)
};

struct PixelNormsArgs {
  int64_t channels = 0, channels2 = 0;
  const float *x = nullptr, *x2 = nullptr;
  float eps = 0.0f;
  float* out = nullptr;  // one per pixel
};

struct NormFactorsArgs {
  int64_t groups = 1;
  int64_t channels[2] = {}, stretches[2] = {};  // of one or two sets of statistics
  const float* statistics[2] = {};              // (B, stretches, 3, channels)
  ChannelFactors factors;
  float eps = 0.0f;
  float* out = nullptr;  // (B, 2, all channels)
};

}  // namespace fastdiff
