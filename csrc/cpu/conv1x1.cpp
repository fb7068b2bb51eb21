// conv1x1: a matrix of weights times the channels of every pixel, with a norm before and sums after, see
// fastdiff/ops/conv1x1.py.
//
// A block of stretches at a time, and of it a panel of packed weights, which stays in the nearest caches,
// with one tile of pixels after the other: they are normalised and activated into rows when the first panel
// needs them (or read where they lie), multiplied, and finished at once. What a tile's end and the next block
// read is asked for while the tile is multiplied.
#include "conv_norm.h"
#include "conv_sums.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

// What is asked for once per row while a tile is multiplied: the row's outputs and residuals, which its end
// reads and writes, and a share of the channels of a pixel that is multiplied later.
struct AskAhead {
  static constexpr bool asks = true;
  struct Rows {
    const float* at = nullptr;
    int64_t stride = 0, count = 0;
  };
  Rows out, residual, later[2];

  AskAhead(const Conv3x3Args& map, int64_t pixel, int64_t first, int64_t count)
      : out{map.out + pixel * map.outs + first, map.outs, count} {
    if (map.residual && map.residual != map.out)
      residual = {map.residual + pixel * map.outs + first, map.outs, count};
  }
  // Part `part` of `parts` of the input from this pixel on.
  void pixels(const Conv3x3Args& map, int64_t pixel, int64_t part, int64_t parts) {
    const auto share = [=](const float* x, int64_t channels) {
      const int64_t first = channels * part / parts;
      return Rows{x + pixel * channels + first, channels, channels * (part + 1) / parts - first};
    };
    later[0] = share(map.x, map.channels);
    if (map.x2) later[1] = share(map.x2, map.channels2);
  }
  // Inlined in any case: a call that does nothing but ask for memory has no effect in the compiler's eyes,
  // and GCC removes it.
  inline __attribute__((always_inline)) void operator()(int64_t row) const {
    for (int64_t i = 0; i < out.count; i += 16) __builtin_prefetch(out.at + row * out.stride + i, 1, 3);
    for (int64_t i = 0; i < residual.count; i += 16)
      __builtin_prefetch(residual.at + row * residual.stride + i, 0, 3);
    for (const Rows& rows : later)
      for (int64_t i = 0; i < rows.count; i += 16) __builtin_prefetch(rows.at + row * rows.stride + i, 0, 2);
  }
};

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

  void make_tile(int64_t pixel, int64_t count, float* rows) const {
    with_norm(map, [&](auto norm, auto activate) {
      make_rows<decltype(norm)::norm, decltype(activate)::activate>(pixel, pixel + count, rows);
    });
  }

  // Rows that are multiplied together: `count` pixels of a stretch, of which `before` are done, or all of
  // `maps` stretches.
  struct Tile {
    int64_t stretch, maps, before, count;
  };

  int64_t pixels_of(int64_t stretch) const {
    const int64_t left = map.width - stretch % cut.per_sample * kConv1x1Stretch;
    return left < kConv1x1Stretch ? left : kConv1x1Stretch;
  }
  // f(tile) for the tiles of stretches begin ... end - 1: parts of one stretch of nearly equal height, or of
  // tiny maps as many whole ones as fill the registers. Where a stretch is cut depends on its size alone.
  template <class F>
  void each_tile(int64_t begin, int64_t end, const F& f) const {
    const int64_t most = kMostRows / map.width;
    for (int64_t stretch = begin, maps = 1; stretch < end; stretch += maps) {
      maps = most < 2 ? 1 : (end - stretch) / ((end - stretch + most - 1) / most);
      const int64_t pixels = maps == 1 ? pixels_of(stretch) : maps * map.width;
      const int64_t tiles = (pixels + kMostRows - 1) / kMostRows;
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t before = pixels * t / tiles;
        f(Tile{stretch, maps, before, pixels * (t + 1) / tiles - before});
      }
    }
  }

  void multiply(const float* rows, int64_t count, int64_t panel, float* m, const float* next, int64_t step,
                const AskAhead& ask) const {
    const char* ahead = reinterpret_cast<const char*>(next);
    const float* weight = map.weight + panel * kPanel * depth;
    if (map.outs - panel * kPanel <= kLanes)
      multiply_of<1, AskAhead>(count)(rows, depth, weight, depth, m, kPanel, ahead, 4 * step, ask);
    else
      multiply_of<kPanelVectors, AskAhead>(count)(rows, depth, weight, depth, m, kPanel, ahead, 4 * step,
                                                  ask);
  }

  // A vector of channels of `count` pixels of one stretch, of which `before` are done; `at` is the first.
  template <class Access>
  void finish_vector(const ConvSums& s, float* m, int64_t c, int64_t at, int64_t count, int64_t before,
                     Access access) const {
    const Floats shift = load(s.shift() + c), gain = broadcast(map.gain);
    float* out = map.out + at + c;
    m += c;
    if (map.residual) {
      const float* residual = map.residual + at + c;
      for (int64_t r = 0; r < count; ++r) {
        const Floats y =
            ((load(m + r * kPanel) + shift) + access.template get<F32>(residual + r * map.outs)) * gain;
        access.template put<F32>(out + r * map.outs, y);
        store(m + r * kPanel, y);
      }
    } else {
      for (int64_t r = 0; r < count; ++r) {
        const Floats y = (load(m + r * kPanel) + shift) * gain;
        access.template put<F32>(out + r * map.outs, y);
        store(m + r * kPanel, y);
      }
    }
    if (!map.statistics) return;
    const Joined join(before, count);
    if (join.opens) {
      Floats first{};
      for (int64_t r = 0; r < count; ++r) first += load(m + r * kPanel);
      open_moments(s, c, first * join.share);
    }
    const Floats center = load(s.mean() + c);
    Floats sum{}, square{};
    for (int64_t r = 0; r < count; ++r) {
      const Floats gap = load(m + r * kPanel) - center;
      sum += gap;
      square += gap * gap;
    }
    const Floats mean = sum * join.share;
    join_moments(s, c, join, mean, count == 1 ? Floats{} : square - sum * mean);
  }

  // `count` pixels of a stretch, of which `before` are done, from products m.
  void finish(const ConvSums& s, float* m, int64_t stretch, int64_t before, int64_t count) const {
    const int64_t at = (first_pixel(stretch) + before) * map.outs + s.first;
    if (before == 0) prepare_shift(s, stretch / cut.per_sample);
    each_vector(s.count, [&](int64_t c, auto access) { finish_vector(s, m, c, at, count, before, access); });
    if (map.statistics && before + count == pixels_of(stretch))
      write_statistics(s, map.statistics + 3 * stretch * map.outs, before + count);
  }

  void finish_tile(const ConvSums& s, float* m, const Tile& tile) const {
    if (tile.maps == 1) return finish(s, m, tile.stretch, tile.before, tile.count);
    for (int64_t i = 0; i < tile.maps; ++i)
      finish(s, m + i * map.width * kPanel, tile.stretch + i, 0, map.width);
  }

  // Stretches begin ... end - 1, one part of the panels; the block after it, if this thread has one, starts
  // `after` pixels later, else 0. Rows that do not lie ready are made before they are first multiplied.
  void run_block(int64_t begin, int64_t end, int64_t part, int64_t after, float* scratch) const {
    const bool made = map.factors || map.activate || map.x2;
    const int64_t first = first_pixel(begin), pixels = first_pixel(end) - first;
    const int64_t from = panels * part / args.parts, to = panels * (part + 1) / args.parts;
    const float* const rows = made ? scratch : map.x + first * map.channels;
    alignas(64) float m[kMostRows * kPanel], sums[4 * kPanel];
    for (int64_t panel = from; panel < to; ++panel) {
      const int64_t out = panel * kPanel, left = map.outs - out, width = left <= kLanes ? kLanes : kPanel;
      const ConvSums s{map, out, left < kPanel ? left : kPanel, kPanel, 0, sums};
      const float* next = map.weight + (out + width) * depth;
      each_tile(begin, end, [&](const Tile& tile) {
        const int64_t pixel = first_pixel(tile.stretch) + tile.before, row = (pixel - first) * depth;
        if (made && panel == from) make_tile(pixel, tile.count, scratch + row);
        AskAhead ask(map, pixel, out, s.count);
        if (after) ask.pixels(map, pixel + after, panel - from, to - from);
        const int64_t step = width * tile.count / pixels;
        multiply(rows + row, tile.count, panel, m, next, step, ask);
        next += step * depth;
        finish_tile(s, m, tile);
      });
    }
  }

  void run_unit(int64_t unit, int64_t last, float* scratch) const {
    const int64_t stretches = map.batch * cut.per_sample, block = unit / args.parts;
    const int64_t begin = block * args.block, end = begin + args.block;
    const bool goes_on = args.parts == 1 && unit < last && end < stretches;
    run_block(begin, end < stretches ? end : stretches, unit % args.parts,
              goes_on ? first_pixel(end) - first_pixel(begin) : 0, scratch);
  }
};

void conv1x1(const Conv1x1Args& args, float* scratch, int64_t begin, int64_t end) {
  const Conv1x1 conv{args};
  for (int64_t unit = begin; unit < end; ++unit) conv.run_unit(unit, end - 1, scratch);
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
