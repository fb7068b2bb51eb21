// What both passes of the group norm share: its parts, its phases, and the affine map of each channel.
#pragma once

#include "channel_factors.h"
#include "elements.h"

namespace fastdiff::FASTDIFF_ISA {

// A group of one sample, or (channels last) a stretch of its pixels with all channels.
struct Part {
  int64_t sample, first_channel, channels, pixels;
  int64_t start;  // element of the map where it begins

  Part(const GroupNormArgs& args, int64_t index) {
    const FeatureMap& map = args.map;
    const int64_t per_sample = parts_per_sample(args), own = index % per_sample;
    sample = index / per_sample;
    start = sample * map.channels * map.pixels;
    if (map.channels_last) {
      const int64_t size = pixels_per_part(map), first = own * size;
      first_channel = 0;
      channels = map.channels;
      pixels = map.pixels - first < size ? map.pixels - first : size;
      start += first * channels;
    } else {
      channels = map.channels / args.groups;
      first_channel = own * channels;
      pixels = map.pixels;
      start += first_channel * pixels;
    }
  }
};

// Before the activation: u = (x - center) * slope + offset, channel by channel.
struct Affine {
  float *center, *slope, *offset;
};

static inline float* channel_array(const GroupNormArgs& args, int64_t sample, int which) {
  return args.scratch + (sample * kGroupNormArrays + which) * args.map.channels;
}
static inline Affine affine_of(const GroupNormArgs& args, int64_t sample, int64_t channel) {
  return {channel_array(args, sample, 0) + channel, channel_array(args, sample, 1) + channel,
          channel_array(args, sample, 2) + channel};
}

// `unit`: what u is measured in.
static inline void make_affine(const GroupNormArgs& args, int64_t sample, int64_t first_channel,
                               int64_t channels, float unit = 1.0f) {
  const Affine affine = affine_of(args, sample, 0);
  const int64_t width = args.map.channels / args.groups, end = first_channel + channels;
  for (int64_t first = first_channel; first < end; first += width) {
    const float* statistics = args.statistics + (sample * args.groups + first / width) * k_statistics;
    for (int64_t c = first; c < first + width; ++c) {
      const ChannelFactor factor = channel_factor(args.factors, sample, c);
      affine.center[c] = statistics[k_mean];
      affine.slope[c] = unit * factor.gain * statistics[k_reciprocal];
      affine.offset[c] = unit * factor.offset - statistics[k_mean_rest] * affine.slope[c];
    }
  }
}

// A group in one go.
template <class Pass>
static void run_group(const GroupNormArgs& args, int64_t index) {
  const Part part(args, index);
  Pass::prepare(args, part.sample, part.first_channel);
  Pass::first(args, index);
  Pass::middle(args, part.sample, part.first_channel, part.channels);
  Pass::last(args, index);
}

template <class Pass>
static void run_sample(const GroupNormArgs& args, int64_t sample) {
  const int64_t parts = parts_per_sample(args), begin = sample * parts;
  if (!args.map.channels_last) {
    for (int64_t i = begin; i < begin + parts; ++i) run_group<Pass>(args, i);
    return;
  }
  Pass::prepare(args, sample, 0);
  for (int64_t i = begin; i < begin + parts; ++i) Pass::first(args, i);
  Pass::middle(args, sample, 0, args.map.channels);
  for (int64_t i = begin + parts; i-- > begin;) Pass::last(args, i);  // what was read last is still in cache
}

template <class Pass>
static void run_phase(const GroupNormArgs& args, Phase phase, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (phase == Phase::whole) run_sample<Pass>(args, i);
    if (phase == Phase::prepare) Pass::prepare(args, i, 0);
    if (phase == Phase::first) args.map.channels_last ? Pass::first(args, i) : run_group<Pass>(args, i);
    if (phase == Phase::middle) Pass::middle(args, i, 0, args.map.channels);
    if (phase == Phase::last) Pass::last(args, i);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
