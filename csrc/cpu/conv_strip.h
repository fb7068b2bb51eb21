// The input of a convolution, made ready: a rectangle of pixels, normalised and activated once, with the
// zeros of the padding around the map, for a group of channels.
#pragma once

#include "conv_norm.h"
#include "elements.h"

namespace fastdiff::FASTDIFF_ISA {

// Channels first ... first + count - 1 of x or x2, which are channels place ... of both together.
struct ConvGroup {
  const float* x;
  int64_t channels;  // of this map
  int64_t first, place, count;

  ConvGroup(const Conv3x3Args& args, int64_t index) {
    const int64_t groups = (args.channels + kConvGroup - 1) / kConvGroup;
    const bool second = index >= groups;
    x = second ? args.x2 : args.x;
    channels = second ? args.channels2 : args.channels;
    first = (second ? index - groups : index) * kConvGroup;
    place = first + (second ? args.channels : 0);
    count = channels - first < kConvGroup ? channels - first : kConvGroup;
  }
};
static inline int64_t conv_groups(const Conv3x3Args& args) {
  return (args.channels + kConvGroup - 1) / kConvGroup + (args.channels2 + kConvGroup - 1) / kConvGroup;
}

// Rows top ... and columns left ... of the input map; those outside of it are zero. kConvGroup floats a
// pixel.
struct ConvStrip {
  int64_t sample, top, left, rows, columns;
  float* data;
};

template <Norm norm, bool Activate>
static inline __attribute__((always_inline)) void fill_pixels(const Conv3x3Args& args, const ConvGroup& group,
                                                              const ConvStrip& strip, int64_t count,
                                                              const float* factor, const float* offset) {
  const int64_t height = args.in_height, width = args.in_width;
  float* to = strip.data;
  for (int64_t r = 0; r < strip.rows; ++r) {
    const int64_t y = strip.top + r, line = (strip.sample * height + y) * width;
    const bool inside = y >= 0 && y < height;
    for (int64_t c = 0; c < strip.columns; ++c, to += kConvGroup) {
      const int64_t x = strip.left + c;
      if (!inside || x < 0 || x >= width) {
        for (int64_t i = 0; i < count; i += kLanes) store(to + i, Floats{});
        continue;
      }
      const float* from = group.x + (line + x) * group.channels + group.first;
      prefetch(from + 6 * group.channels, static_cast<int>(count));
      const float scale = norm == Norm::pixels ? args.pixel[line + x] : 1.0f;
      each_vector(count, [&](int64_t i, auto access) {
        Floats v = access.template get<F32>(from + i);
        if (norm == Norm::pixels) v *= scale;
        if (norm != Norm::none) v = v * load(factor + i) + load(offset + i);
        store(to + i, Activate ? silu(v) : v);
      });
    }
  }
}

template <Norm norm, bool Activate>
static void fill_with(const Conv3x3Args& args, const ConvGroup& group, const ConvStrip& strip) {
  alignas(64) float factor[kConvGroup + kLanes] = {}, offset[kConvGroup + kLanes] = {};
  if (norm != Norm::none) {
    const int64_t all = args.channels + args.channels2;
    const float* from = args.factors + 2 * strip.sample * all + group.place;
    for (int64_t i = 0; i < group.count; ++i) {
      factor[i] = from[i];
      offset[i] = from[all + i];
    }
  }
  if (group.count == kConvGroup)
    fill_pixels<norm, Activate>(args, group, strip, kConvGroup, factor, offset);
  else
    fill_pixels<norm, Activate>(args, group, strip, group.count, factor, offset);
}

static void fill_strip(const Conv3x3Args& args, const ConvGroup& group, const ConvStrip& strip) {
  with_norm(args, [&](auto norm, auto activate) {
    fill_with<decltype(norm)::norm, decltype(activate)::activate>(args, group, strip);
  });
}

}  // namespace fastdiff::FASTDIFF_ISA
