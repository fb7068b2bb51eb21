// Arguments of conv3x3, and how its work is cut. All maps are channels last, all numbers float32.
#pragma once

#include <cstdint>

namespace fastdiff {

// A tile is a square of outputs: 4 or 2 to a side for Winograd's F(4,3) and F(2,3), 1 for the direct sum.
static constexpr int64_t conv3x3_positions(int64_t tile) {
  return tile == 1 ? 1 : (tile + 2) * (tile + 2);
}
// Products that one position sums up for one output channel.
static constexpr int64_t conv3x3_depth(int64_t tile, int64_t channels) {
  return tile == 1 ? 9 * channels : channels;
}

// Outputs are cut into stretches of four rows and `kStretchTiles` tiles: what one row of statistics covers,
// and what a block of work is made of. They depend on the size of one map alone, so that neither the batch
// nor the number of threads changes a bit of the result.
constexpr int64_t kStretchTiles = 16;

struct Conv3x3Cut {
  int64_t rows, columns;      // tiles of a map
  int64_t tall, wide;         // tiles of a stretch
  int64_t down, across;       // stretches of a map
  int64_t per_sample, tiles;  // stretches of a sample; most tiles of a stretch
};
static constexpr Conv3x3Cut conv3x3_cut(int64_t tile, int64_t height, int64_t width) {
  Conv3x3Cut cut{};
  cut.rows = (height + tile - 1) / tile;
  cut.columns = (width + tile - 1) / tile;
  cut.tall = 4 / tile < cut.rows ? 4 / tile : cut.rows;
  cut.wide = kStretchTiles < cut.columns ? kStretchTiles : cut.columns;
  cut.down = (cut.rows + cut.tall - 1) / cut.tall;
  cut.across = (cut.columns + cut.wide - 1) / cut.wide;
  cut.per_sample = cut.down * cut.across;
  cut.tiles = cut.tall * cut.wide;
  return cut;
}

struct Conv3x3Args {
  int64_t batch = 0, outs = 0, height = 0, width = 0;  // of the output
  int64_t in_height = 0, in_width = 0;                 // of x
  int64_t channels = 0, channels2 = 0;                 // of x and x2
  int64_t stride = 1, before = 1;  // zeros before the first row and column; stride 2: tile 1
  int64_t tile = 4;
  bool upsample = false, activate = false;
  const float *x = nullptr, *x2 = nullptr;
  const float* factors = nullptr;  // (B, 2, channels + channels2)
  const float* pixel = nullptr;    // (B, height, width) of the input
  const float* weight = nullptr;   // packed for this tile, or (plain) as for a tile of 1
  bool plain = false;
  const float *bias = nullptr, *add = nullptr, *residual = nullptr;
  int64_t add_stride = 0;
  float gain = 1.0f;
  float* out = nullptr;
  float* statistics = nullptr;  // (B, stretches, 3, outs)
  // The plan: stretches of a block, and panels of output channels that are multiplied before they are added
  // up.
  int64_t block = 1, chunk = 1;
  // Whether one panel follows the other, so that packed weights are read in the order of memory; else each
  // position of the input serves all panels of a chunk before the next one does.
  bool in_turn = false;
  // Whether products take the place of inputs: those of a position lie where the inputs of the position
  // before it were, so that a block needs the cache for one of both. One chunk then takes all panels.
  bool in_place = false;
  // Where threads share a block: which one, and its transformed input.
  int64_t shared_block = 0;
  float* shared = nullptr;
};

// `blocks`: whole blocks begin ... end - 1. Where a block is shared, `input` makes its transformed input for
// groups of channels, then `panels` multiplies panels of output channels. `alone`: the only block, whose
// input every thread makes for its own panels.
enum class Conv3x3Phase : int { blocks, input, panels, alone };

constexpr int64_t kConvGroup = 64;  // channels that are normalised and transformed together

// Floats between the positions of transformed inputs and of products: a little more than they take, so that
// the positions of one tile do not all fall into one set of the cache.
static constexpr int64_t conv3x3_apart(int64_t tiles, int64_t width) {
  return (tiles * width + 15) / 16 * 16 + 16;
}
static constexpr int64_t conv3x3_input_apart(const Conv3x3Args& args, int64_t panel) {
  const Conv3x3Cut cut = conv3x3_cut(args.tile, args.height, args.width);
  const int64_t depth = conv3x3_depth(args.tile, args.channels + args.channels2);
  const int64_t width = args.in_place ? args.chunk * panel : 0;
  return conv3x3_apart(args.block * cut.tiles, width > depth ? width : depth);
}
static constexpr int64_t conv3x3_product_apart(const Conv3x3Args& args, int64_t panel) {
  const Conv3x3Cut cut = conv3x3_cut(args.tile, args.height, args.width);
  return args.in_place ? conv3x3_input_apart(args, panel)
                       : conv3x3_apart(args.block * cut.tiles, args.chunk * panel);
}
static constexpr int64_t conv3x3_input_floats(const Conv3x3Args& args, int64_t panel) {
  return (conv3x3_positions(args.tile) + args.in_place) * conv3x3_input_apart(args, panel);
}
// Products that do not take the place of inputs.
static constexpr int64_t conv3x3_apart_floats(const Conv3x3Args& args, int64_t panel) {
  return args.in_place ? 0 : conv3x3_positions(args.tile) * conv3x3_product_apart(args, panel);
}
static constexpr int64_t conv3x3_product_floats(const Conv3x3Args& args, int64_t panel) {
  return conv3x3_apart_floats(args, panel) + 4 * args.chunk * panel +
         (args.plain ? 2 * (args.tile + 2) * ((args.channels + args.channels2) * panel + 16) : 0);
}
static constexpr int64_t conv3x3_strip_floats(const Conv3x3Args& args) {
  const Conv3x3Cut cut = conv3x3_cut(args.tile, args.height, args.width);
  const int64_t rows = args.block * cut.tall < cut.rows ? args.block * cut.tall : cut.rows;
  return ((rows * args.tile - 1) * args.stride + 3) * ((cut.wide * args.tile - 1) * args.stride + 3) *
         kConvGroup;
}

struct Conv3x3PackArgs {
  int64_t outs = 0, channels = 0, tile = 4;
  const float* weight = nullptr;
  int64_t strides[4] = {};  // of (Cout, Cin, 3, 3)
  float* out = nullptr;
};

}  // namespace fastdiff
