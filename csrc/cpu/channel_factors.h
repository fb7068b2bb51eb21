// The factors of one channel of one sample: weight, bias, scale and shift made into one product and one sum.
#pragma once

#include "fastdiff/norms.h"
#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

// y = gain * normalised + offset
struct ChannelFactor {
  float gain, offset;
};

static inline ChannelFactor channel_factor(const ChannelFactors& f, int64_t sample, int64_t channel) {
  const float weight = f.weight ? f.weight[channel] : 1.0f, bias = f.bias ? f.bias[channel] : 0.0f;
  const float scale = f.scale ? 1.0f + f.scale[sample * f.scale_stride + channel] : 1.0f;
  const float shift = f.shift ? f.shift[sample * f.shift_stride + channel] : 0.0f;
  return {weight * scale, bias * scale + shift};
}

}  // namespace fastdiff::FASTDIFF_ISA
