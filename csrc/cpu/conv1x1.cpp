// conv1x1: a matrix of weights times the channels of every pixel, with a norm before and sums after, see
// fastdiff/ops/conv1x1.py.
//
// A block of stretches at a time: its pixels are normalised and activated into rows (or read where they lie),
// and panels of packed weights, which stay in the nearest cache meanwhile, are multiplied with all of them.
#include "conv_norm.h"
#include "conv_sums.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

struct Conv1x1 {
  const Conv1x1Args& args;
  const Conv3x3Args& map = args.map;
  int64_t depth = map.channels + map.channels2;
  int64_t panels = (map.outs + kPanel - 1) / kPanel;
  Conv3x3Cut cut = line_of(map.width);

  static Conv3x3Cut line_of(int64_t pixels) {
    const int64_t stretches = conv1x1_stretches(pixels);
    return {1, pixels, 1, kConv1x1Stretch, 1, stretches, stretches, kConv1x1Stretch};
  }

  // Pixels of stretches begin ... end - 1, counted over the whole batch.
  int64_t first_pixel(int64_t stretch) const {
    return stretch / cut.per_sample * map.width + stretch % cut.per_sample * kConv1x1Stretch;
  }

  // `count` channels of one pixel, normalised and activated.
  template <Norm norm, bool Activate>
  void make_channels(const float* x, int64_t count, const float* factor, float scale, float* to) const {
    const float* offset = factor + depth;
    each_vector(count, [&](int64_t i, auto access) {
      Floats v = access.template get<F32>(x + i);
      if (norm == Norm::pixels) v *= scale;
      if (norm != Norm::none)
        v = v * access.template get<F32>(factor + i) + access.template get<F32>(offset + i);
      access.template put<F32>(to + i, Activate ? silu(v) : v);
    });
  }

  template <Norm norm, bool Activate>
  void make_rows(int64_t begin, int64_t end, float* rows) const {
    for (int64_t pixel = begin; pixel < end; ++pixel, rows += depth) {
      const float* factor = norm == Norm::none ? nullptr : map.factors + 2 * (pixel / map.width) * depth;
      const float scale = norm == Norm::pixels ? map.pixel[pixel] : 1.0f;
      make_channels<norm, Activate>(map.x + pixel * map.channels, map.channels, factor, scale, rows);
      if (map.x2)
        make_channels<norm, Activate>(map.x2 + pixel * map.channels2, map.channels2, factor + map.channels,
                                      scale, rows + map.channels);
    }
  }

  // The rows of a block: made in `rows`, or where they lie.
  const float* rows_of(int64_t begin, int64_t end, float* rows) const {
    if (!map.factors && !map.activate && !map.x2) return map.x + begin * map.channels;
    with_norm(map, [&](auto norm, auto activate) {
      make_rows<decltype(norm)::norm, decltype(activate)::activate>(begin, end, rows);
    });
    return rows;
  }

  void multiply(const float* rows, int64_t count, int64_t panel, float* m) const {
    const float* weight = map.weight + panel * kPanel * depth;
    const int64_t left = map.outs - panel * kPanel, size = (left <= kLanes ? kLanes : kPanel) * depth;
    if (left <= kLanes)
      multiply_panel<1>(rows, depth, count, weight, depth, m, kPanel, weight + size, 4 * size);
    else
      multiply_panel<kPanelVectors>(rows, depth, count, weight, depth, m, kPanel, weight + size, 4 * size);
  }

  void run_unit(int64_t unit, float* scratch) const {
    const int64_t stretches = map.batch * cut.per_sample, part = unit % args.parts;
    const int64_t begin = unit / args.parts * args.block;
    const int64_t end = begin + args.block < stretches ? begin + args.block : stretches;
    const int64_t first = first_pixel(begin), pixels = first_pixel(end) - first;
    float *const made = scratch, *const m = scratch + args.block * kConv1x1Stretch * depth;
    float* const sums = m + args.block * kConv1x1Stretch * kPanel;
    const float* rows = rows_of(first, first + pixels, made);
    for (int64_t panel = panels * part / args.parts; panel < panels * (part + 1) / args.parts; ++panel) {
      multiply(rows, pixels, panel, m);
      const int64_t out = panel * kPanel, count = map.outs - out < kPanel ? map.outs - out : kPanel;
      const ConvSums s{map, out, count, kPanel, 0, sums};
      const float* next = m;
      for (int64_t stretch = begin; stretch < end; ++stretch) {
        if (stretch == begin || stretch % cut.per_sample == 0) prepare_shift(s, stretch / cut.per_sample);
        next = finish_stretch<1>(s, cut, stretch, next);
      }
    }
  }
};

void conv1x1(const Conv1x1Args& args, float* scratch, int64_t begin, int64_t end) {
  const Conv1x1 conv{args};
  for (int64_t unit = begin; unit < end; ++unit) conv.run_unit(unit, scratch);
}

void conv1x1_pack(const Conv1x1PackArgs& args, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, left = args.outs - first, width = left <= kLanes ? kLanes : kPanel;
    float* out = args.out + first * args.channels;
    for (int64_t c = 0; c < args.channels; ++c, out += width) {
      for (int64_t l = 0; l < width; ++l)
        out[l] = l < left ? args.weight[(first + l) * args.strides[0] + c * args.strides[1]] : 0.0f;
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
