// conv3x3: Winograd's minimal filters and the direct sum with a norm before and sums after, see
// fastdiff/ops/conv3x3.py.
//
// A block of tiles at a time: its input is normalised and transformed to V [position][tile][channel], panels
// of packed weights are multiplied with it to M [position][tile][output channel], and M is transformed to
// outputs. Panels lie in memory in the order in which they are read. The direct sum is the case of tiles of
// one output and one position, whose V holds the nine pixels around the output.
#include "conv_strip.h"
#include "conv_sums.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

// Tiles top ... bottom - 1 by left ... right - 1 of a sample; the first has the number `tile` in its block.
struct ConvRun {
  int64_t sample, top, bottom, left, right, tile;
};

// Stretches begin ... end - 1 as rectangles: neighbours below each other in one sample are one.
template <class F>
static void each_run(const Conv3x3Cut& cut, int64_t begin, int64_t end, const F& f) {
  int64_t tile = 0;
  while (begin < end) {
    const int64_t sample = begin / cut.per_sample, own = begin % cut.per_sample;
    int64_t last = begin + 1;
    if (cut.across == 1) {
      while (last < end && last < (sample + 1) * cut.per_sample) ++last;
    }
    const int64_t top = own / cut.across * cut.tall, left = own % cut.across * cut.wide;
    const int64_t bottom = top + (last - begin) * cut.tall, right = left + cut.wide;
    const ConvRun run{
        sample, top, bottom < cut.rows ? bottom : cut.rows, left, right < cut.columns ? right : cut.columns,
        tile};
    f(run);
    tile += (run.bottom - run.top) * (run.right - run.left);
    begin = last;
  }
}

// The row or column of x that the i-th pixel of a tile reads, -1 for the zeros before the first one.
static inline int64_t source(const Conv3x3Args& args, int64_t tile, int64_t i) {
  const int64_t place = tile * args.tile * args.stride - args.before + i;
  return args.upsample ? place >> 1 : place;
}

template <int Tile>
static ConvStrip strip_of(const Conv3x3Args& args, const ConvRun& run, float* data) {
  const int64_t top = source(args, run.top, 0), left = source(args, run.left, 0);
  return {run.sample,
          top,
          left,
          source(args, run.bottom - 1, Tile + 1) - top + 1,
          source(args, run.right - 1, Tile + 1) - left + 1,
          data};
}

// The group's channels of all tiles of a run, from the strip to v; `ask` is called once a tile.
template <int Tile, class Ask>
static void transform_run(const Conv3x3Args& args, const ConvRun& run, const ConvStrip& strip,
                          const ConvGroup& group, float* v, int64_t apart, const Ask& ask) {
  constexpr int side = Tile + 2;
  const int64_t channels = args.channels + args.channels2, depth = conv3x3_depth(Tile, channels);
  v += run.tile * depth + group.place;
  for (int64_t row = run.top; row < run.bottom; ++row) {
    int64_t rows[side], columns[side];
    for (int i = 0; i < side; ++i) rows[i] = (source(args, row, i) - strip.top) * strip.columns * kConvGroup;
    for (int64_t column = run.left; column < run.right; ++column, v += depth) {
      ask();
      for (int j = 0; j < side; ++j) columns[j] = (source(args, column, j) - strip.left) * kConvGroup;
      each_vector(group.count, [&](int64_t c, auto access) {
        if constexpr (Tile > 1) {
          transform_input<Tile>(strip.data + c, rows, columns, v + c, apart, access);
        } else {
          for (int tap = 0; tap < 9; ++tap)
            access.template put<F32>(v + tap * channels + c,
                                     load(strip.data + rows[tap / 3] + columns[tap % 3] + c));
        }
      });
    }
  }
}

constexpr int kFewPixels = 16;           // for so few a direct sum waits for its weights
constexpr int64_t kAskedFloats = 16384;  // weights that are asked for while an input is made

template <int Tile>
struct Conv3x3 {
  const Conv3x3Args& args;
  Conv3x3Cut cut = conv3x3_cut(Tile, args.height, args.width);
  int64_t stretches = args.batch * cut.per_sample;
  int64_t depth = conv3x3_depth(Tile, args.channels + args.channels2);
  int64_t width = args.chunk * kPanel;
  int64_t apart = conv3x3_input_apart(args, kPanel), product_apart = conv3x3_product_apart(args, kPanel);
  int64_t panels = (args.outs + kPanel - 1) / kPanel;
  int64_t blocks = (stretches + args.block - 1) / args.block;
  int64_t opening = 0;  // the first block of this thread

  int64_t first_of(int64_t block) const { return block * args.block; }
  int64_t end_of(int64_t block) const {
    const int64_t end = first_of(block) + args.block;
    return end < stretches ? end : stretches;
  }

  // Groups begin ... end - 1 of a block's input; the first weights of `panel` are asked for on the way.
  void make_input(int64_t block, float* v, float* strip_data, int64_t begin, int64_t end,
                  int64_t panel) const {
    const int64_t share = kAskedFloats / ((end - begin) * (end_of(block) - first_of(block)) * cut.tiles);
    const float* next = weight_of(panel);
    const auto ask = [&] {
      for (const float* const last = next + share; next < last; next += 16) __builtin_prefetch(next, 0, 2);
    };
    each_run(cut, first_of(block), end_of(block), [&](const ConvRun& run) {
      const ConvStrip strip = strip_of<Tile>(args, run, strip_data);
      for (int64_t g = begin; g < end; ++g) {
        const ConvGroup group(args, g);
        fill_strip(args, group, strip);
        transform_run<Tile>(args, run, strip, group, v, apart, ask);
      }
    });
  }

  int64_t panel_floats(int64_t panel) const {
    return (args.outs - panel * kPanel <= kLanes ? kLanes : kPanel) * depth;
  }
  // Weights of a panel, as they are packed.
  const float* weight_of(int64_t panel) const {
    return args.weight + panel * kPanel * depth * (args.plain ? 9 : conv3x3_positions(Tile));
  }

  // One position of a panel: `size` weights at u; `bytes` from `next` on are read soon.
  void multiply_position(const float* v, int64_t tiles, int64_t p, const float* u, int64_t size, float* m,
                         const float* next, int64_t bytes) const {
    v += p * apart;
    m += p * product_apart;
    if (size == kLanes * depth)
      multiply_panel<1>(v, depth, tiles, u, depth, m, width, next, bytes);
    else
      multiply_panel<kPanelVectors>(v, depth, tiles, u, depth, m, width, next, bytes);
  }

  // Panels of a few pixels: their weights are one stream from memory.
  void multiply_few(const float* v, int64_t tiles, int64_t begin, int64_t end, float* m) const {
    for (int64_t panel = begin; panel < end; ++panel, m += kPanel) {
      if (panel_floats(panel) == kLanes * depth)
        multiply_stream<1>(v, depth, tiles, weight_of(panel), depth, m, width);
      else
        multiply_stream<kPanelVectors>(v, depth, tiles, weight_of(panel), depth, m, width);
    }
  }

  // Panels from packed weights to m, position by position. Threads that read the same weights begin at
  // different panels, so that each asks the memory for a share of them and finds the others in the cache.
  void multiply_packed(const float* v, int64_t tiles, int64_t begin, int64_t end, float* m) const {
    const int64_t first = begin + (end - begin) * opening / blocks;
    for (int64_t p = 0; p < conv3x3_positions(Tile); ++p) {
      for (int64_t i = begin, panel = first, after; i < end; ++i, panel = after) {
        after = panel + 1 < end ? panel + 1 : begin;
        const int64_t size = panel_floats(panel);
        const float* next = weight_of(after) + (p + (after == first)) * panel_floats(after);
        const float* u = weight_of(panel) + p * size;
        multiply_position(v, tiles, p, u, size, m + (panel - begin) * kPanel, next, 4 * size);
      }
    }
  }

  // A panel from weights as they are, transformed into u by two rows of positions.
  template <int Pair = 0>
  void multiply_plain(const float* v, int64_t tiles, int64_t panel, float* m, float* u) const {
    constexpr int side = Tile + 2;
    const int64_t size = panel_floats(panel), share = 9 * size / (side * side);
    const int64_t u_apart = size + 16;  // so that its positions do not all fall into one set of the cache
    const float* weight = weight_of(panel);
    if (size == kLanes * depth)
      transform_filters<Tile, Pair, 1>(weight, depth, u, u_apart);
    else
      transform_filters<Tile, Pair, kPanelVectors>(weight, depth, u, u_apart);
    for (int i = 0; i < 2 * side; ++i) {
      const int64_t p = Winograd<Tile>::pairs[Pair][i / side] * side + i % side;
      const float* next = weight + 9 * size + (2 * side * Pair + i) * share;
      multiply_position(v, tiles, p, u + i * u_apart, size, m, next, 4 * share);
    }
    if constexpr (2 * (Pair + 1) < side) multiply_plain<Pair + 1>(v, tiles, panel, m, u);
  }

  // Panels of one chunk, all positions, to m.
  void multiply_chunk(const float* v, int64_t tiles, int64_t begin, int64_t end, float* m, float* u) const {
    if (Tile == 1 && tiles <= kFewPixels) return multiply_few(v, tiles, begin, end, m);
    if (!args.in_turn) return multiply_packed(v, tiles, begin, end, m);
    for (int64_t panel = begin; panel < end; ++panel, m += kPanel) {
      if constexpr (Tile > 1) {
        if (args.plain) {
          multiply_plain(v, tiles, panel, m, u);
          continue;
        }
      }
      multiply_packed(v, tiles, panel, panel + 1, m);
    }
  }

  // Output channels of panels begin ... end - 1; `sums` is memory behind the products.
  void make_output(int64_t block, const float* v, float* m, float* sums, int64_t begin, int64_t end) const {
    float* const u = sums + 4 * width;
    int64_t tiles = 0;
    each_run(cut, first_of(block), end_of(block), [&tiles](const ConvRun& run) {
      tiles = run.tile + (run.bottom - run.top) * (run.right - run.left);
    });
    for (int64_t panel = begin; panel < end; panel += args.chunk) {
      const int64_t last = panel + args.chunk < end ? panel + args.chunk : end;
      multiply_chunk(v, tiles, panel, last, m, u);
      const int64_t first = panel * kPanel, beyond = last * kPanel < args.outs ? last * kPanel : args.outs;
      const ConvSums s{args, first, beyond - first, width, product_apart, sums};
      const float* next = m;
      for (int64_t stretch = first_of(block); stretch < end_of(block); ++stretch) {
        if (stretch == first_of(block) || stretch % cut.per_sample == 0)
          prepare_shift(s, stretch / cut.per_sample);
        next = finish_stretch<Tile>(s, cut, stretch, next);
      }
    }
  }

  void run(Conv3x3Phase phase, float* scratch, int64_t begin, int64_t end) {
    const int64_t products = conv3x3_apart_floats(args, kPanel);
    if (phase == Conv3x3Phase::input) {
      make_input(args.shared_block, args.shared, scratch, begin, end, begin * panels / conv_groups(args));
    } else if (phase == Conv3x3Phase::panels) {
      make_output(args.shared_block, args.shared, scratch, scratch + products, begin, end);
    } else if (phase == Conv3x3Phase::alone) {
      float* const m = scratch + conv3x3_input_floats(args, kPanel);
      make_input(0, scratch, m, 0, conv_groups(args), begin);
      make_output(0, scratch, m, m + products, begin, end);
    } else {
      opening = begin;
      float* const behind = scratch + conv3x3_input_floats(args, kPanel);
      float* const v = scratch + (args.in_place ? apart : 0);
      float* const m = args.in_place ? scratch : behind;
      float* const strip = behind + conv3x3_product_floats(args, kPanel);
      for (int64_t block = begin; block < end; ++block) {
        make_input(block, v, strip, 0, conv_groups(args), 0);
        make_output(block, v, m, behind + products, 0, panels);
      }
    }
  }
};

void conv3x3(const Conv3x3Args& args, Conv3x3Phase phase, float* scratch, int64_t begin, int64_t end) {
  if (args.tile == 4) Conv3x3<4>{args}.run(phase, scratch, begin, end);
  if (args.tile == 2) Conv3x3<2>{args}.run(phase, scratch, begin, end);
  if (args.tile == 1) Conv3x3<1>{args}.run(phase, scratch, begin, end);
}

// The filters of one input channel to kLanes output channels, transformed in double.
template <int Tile>
static void pack_filters(const double (&g)[9][kLanes], float* out, int64_t apart) {
  constexpr int side = Tile + 2;
  double half[side][3][kLanes];
  for (int i = 0; i < side; ++i) {
    const double* f = Winograd<Tile>::filter[i];
    for (int j = 0; j < 3; ++j) {
      for (int l = 0; l < kLanes; ++l)
        half[i][j][l] = f[0] * g[j][l] + f[1] * g[3 + j][l] + f[2] * g[6 + j][l];
    }
  }
  for (int i = 0; i < side; ++i) {
    for (int j = 0; j < side; ++j, out += apart) {
      const double* f = Winograd<Tile>::filter[j];
      for (int l = 0; l < kLanes; ++l)
        out[l] = static_cast<float>(f[0] * half[i][0][l] + f[1] * half[i][1][l] + f[2] * half[i][2][l]);
    }
  }
}

static void read_filters(const Conv3x3PackArgs& args, int64_t out, int64_t channel, double (&g)[9][kLanes]) {
  const float* w = args.weight + out * args.strides[0] + channel * args.strides[1];
  for (int tap = 0; tap < 9; ++tap) {
    const float* from = w + tap / 3 * args.strides[2] + tap % 3 * args.strides[3];
    for (int l = 0; l < kLanes; ++l) g[tap][l] = out + l < args.outs ? from[l * args.strides[0]] : 0.0;
  }
}

void conv3x3_pack(const Conv3x3PackArgs& args, int64_t begin, int64_t end) {
  const int64_t positions = conv3x3_positions(args.tile), depth = conv3x3_depth(args.tile, args.channels);
  double g[9][kLanes];
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t left = args.outs - panel * kPanel, width = left <= kLanes ? kLanes : kPanel;
    for (int64_t v = 0; v < width; v += kLanes) {
      float* out = args.out + panel * kPanel * positions * depth + v;
      for (int64_t c = 0; c < args.channels; ++c, out += width) {
        read_filters(args, panel * kPanel + v, c, g);
        if (args.tile == 4) pack_filters<4>(g, out, depth * width);
        if (args.tile == 2) pack_filters<2>(g, out, depth * width);
        if (args.tile == 1) {
          for (int tap = 0; tap < 9; ++tap)
            for (int l = 0; l < kLanes; ++l)
              out[tap * args.channels * width + l] = static_cast<float>(g[tap][l]);
        }
      }
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
