// fastdiff::conv3x3_cpp and conv3x3_pack_cpp, the C++ backend of fastdiff/ops/conv3x3.py.
#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"
#include "scratch.h"
#include "tape.h"

namespace fastdiff {
namespace {

// Measured: docs/lab/conv3x3.md. Tiles of a block; few tiles; panels of a chunk that are taken in turn, and
// output channels of another chunk.
constexpr int64_t kBlockTiles = 32, kFewTiles = 16, kChunk = 2, kWideChunk = 256;

void check_tile(int64_t tile) {
  STD_TORCH_CHECK(tile == 1 || tile == 2 || tile == 4, "conv3x3: tile must be 1, 2 or 4, got ", tile);
}

int64_t packed_floats(int64_t tile, int64_t outs, int64_t channels) {
  check_tile(tile);
  check_channels(outs, channels, "conv3x3");
  const int64_t lanes = cpu_kernels().lanes;
  return ceil_div(outs, lanes) * lanes * conv3x3_positions(tile) * conv3x3_depth(tile, channels);
}

// A float32 map (B, C, H, W) whose channels are last; null for one that is not there.
const float* channels_last_map(const OptionalTensor& t, std::initializer_list<int64_t> shape,
                               const char* name) {
  if (!t.has_value()) return nullptr;
  bool fits = is_here(*t) && t->scalar_type() == ScalarType::Float && t->dim() == 4;
  for (int64_t d = 0; fits && d < 4; ++d) fits = t->size(d) == shape.begin()[d];
  STD_TORCH_CHECK(fits && dense_in_order(*t, true), "conv3x3: ", name,
                  " must be a float32 map of the expected shape, channels last");
  return static_cast<const float*>(t->const_data_ptr());
}

// Whether the input of a block and a panel of weights stay in the second level of the cache, so that panels
// may be taken in turn.
bool stays(const Conv3x3Args& args, int64_t tiles, int64_t panel) {
  const int64_t depth = conv3x3_depth(args.tile, args.channels + args.channels2);
  return conv3x3_positions(args.tile) * (tiles + panel) * depth < 400000;
}

// How many stretches a block takes and panels a chunk; whether threads share blocks. With few tiles every
// thread would read all weights for a small block of its own: there they divide the output channels instead.
bool plan(Conv3x3Args& args) {
  const Conv3x3Cut cut = conv3x3_cut(args.tile, args.height, args.width);
  const int64_t threads = torch::stable::get_num_threads(), stretches = args.batch * cut.per_sample;
  const bool shared = threads > 1 && args.batch * cut.rows * cut.columns < kBlockTiles * threads;
  const int64_t most = std::max<int64_t>(1, (shared ? 2 : 1) * kBlockTiles / cut.tiles);
  const int64_t shares = shared ? 1 : threads, blocks = ceil_div(ceil_div(stretches, most), shares) * shares;
  args.block = ceil_div(stretches, blocks);
  const int64_t panel = 2 * cpu_kernels().lanes, tiles = args.block * cut.tiles;
  const bool fits = stays(args, tiles, panel);
  args.in_place =
      !shared && !args.plain && args.tile > 1 && args.outs <= kWideChunk && !(fits && tiles <= kFewTiles);
  args.in_turn = args.plain || (fits && !args.in_place);
  args.chunk = std::min(ceil_div(args.outs, panel), args.in_turn ? kChunk : kWideChunk / panel);
  return shared;
}

void run(Conv3x3Args& args) {
  const bool shared = plan(args);
  const CpuKernels& kernels = cpu_kernels();
  const int64_t panel = 2 * kernels.lanes, panels = ceil_div(args.outs, panel);
  const Conv3x3Cut cut = conv3x3_cut(args.tile, args.height, args.width);
  const int64_t blocks = ceil_div(args.batch * cut.per_sample, args.block);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t input = conv3x3_input_floats(args, panel), product = conv3x3_product_floats(args, panel);
  const int64_t strip = conv3x3_strip_floats(args);
  if (!shared) {
    const int64_t slots = std::min(threads, blocks), size = input + product + strip;
    float* const scratch = scratch_of(slots * size);
    in_slots(slots, blocks, [&](int64_t slot, int64_t begin, int64_t end) {
      kernels.conv3x3(args, Conv3x3Phase::blocks, scratch + slot * size, begin, end);
    });
    return;
  }
  if (args.tile == 1 && blocks == 1 && args.block * cut.tiles <= kFewTiles) {
    // Copying a few pixels twice takes less time than reading what the other thread has just written.
    const int64_t slots = std::min(threads, panels), size = input + std::max(product, strip);
    float* const scratch = scratch_of(slots * size);
    in_slots(slots, panels, [&](int64_t slot, int64_t begin, int64_t end) {
      kernels.conv3x3(args, Conv3x3Phase::alone, scratch + slot * size, begin, end);
    });
    return;
  }
  const int64_t groups = ceil_div(args.channels, kConvGroup) + ceil_div(args.channels2, kConvGroup);
  const int64_t size = std::max(product, strip);
  float* const scratch = scratch_of(input + threads * size);
  args.shared = scratch;
  for (args.shared_block = 0; args.shared_block < blocks; ++args.shared_block) {
    in_slots(std::min(threads, groups), groups, [&](int64_t slot, int64_t begin, int64_t end) {
      kernels.conv3x3(args, Conv3x3Phase::input, scratch + input + slot * size, begin, end);
    });
    in_slots(std::min(threads, panels), panels, [&](int64_t slot, int64_t begin, int64_t end) {
      kernels.conv3x3(args, Conv3x3Phase::panels, scratch + input + slot * size, begin, end);
    });
  }
}

void conv3x3(Tensor out, OptionalTensor statistics, Tensor x, OptionalTensor x2, Tensor packed, int64_t tile,
             OptionalTensor bias, OptionalTensor factors, OptionalTensor pixel, bool activate, bool upsample,
             OptionalTensor add, OptionalTensor residual, double gain, int64_t stride, int64_t before) {
  check_tile(tile);
  STD_TORCH_CHECK(
      stride == 1 ? before == 1 : stride == 2 && tile == 1 && !upsample && (before == 0 || before == 1),
      "conv3x3: stride must be 1, or 2 with tile 1, got ", stride);
  STD_TORCH_CHECK(x.dim() == 4 && out.dim() == 4, "conv3x3: x and out must be (B, C, H, W)");
  Conv3x3Args args;
  const int64_t height = x.size(2), width = x.size(3);
  times(4, times(height, width));  // what follows counts in 64 bits, of a map without elements, too
  args.batch = x.size(0);
  args.channels = x.size(1);
  args.channels2 = x2.has_value() && x2->dim() == 4 ? x2->size(1) : 0;
  args.outs = out.size(1);
  args.stride = stride;
  args.before = before;
  args.in_height = height;
  args.in_width = width;
  args.height = upsample ? 2 * height : stride == 2 ? (height + before) / 2 : height;
  args.width = upsample ? 2 * width : stride == 2 ? (width + before) / 2 : width;
  args.tile = tile;
  args.upsample = upsample;
  args.activate = activate;
  args.gain = static_cast<float>(gain);
  const int64_t channels = args.channels + args.channels2;
  args.x = channels_last_map(x, {args.batch, args.channels, height, width}, "x");
  args.x2 = channels_last_map(x2, {args.batch, args.channels2, height, width}, "x2");
  const auto of_output = {args.batch, args.outs, args.height, args.width};
  args.out = const_cast<float*>(channels_last_map(out, of_output, "out"));
  args.residual = channels_last_map(residual, of_output, "residual");
  check_dense(packed, "conv3x3: packed", ScalarType::Float);
  args.plain = tile > 1 && packed.numel() == packed_floats(1, args.outs, channels);
  STD_TORCH_CHECK(args.plain || packed.numel() == packed_floats(tile, args.outs, channels),
                  "conv3x3: packed must be the weight of these channels, packed for this tile or for 1");
  args.weight = static_cast<const float*>(packed.const_data_ptr());
  args.bias = dense_floats(bias, "conv3x3: bias", args.outs);
  if (factors.has_value())
    args.factors = floats_of_shape(*factors, {args.batch, 2, channels}, "conv3x3: factors");
  if (pixel.has_value()) args.pixel = floats_of_shape(*pixel, {args.batch, height, width}, "conv3x3: pixel");
  STD_TORCH_CHECK(!args.pixel || args.factors, "conv3x3: pixel needs factors");
  FeatureMap map;
  map.batch = args.batch;
  map.channels = args.outs;
  args.add = factor_rows(add, map, "conv3x3: add", args.add_stride);
  const bool pixels = args.height > 0 && args.width > 0;
  const int64_t stretches = pixels ? conv3x3_cut(tile, args.height, args.width).per_sample : 0;
  if (statistics.has_value())
    args.statistics =
        floats_of_shape(*statistics, {args.batch, stretches, 3, args.outs}, "conv3x3: statistics");
  const bool in_place = args.residual == args.out;
  check_apart("conv3x3", {Extent(out), Extent(statistics)},
              {Extent(x), Extent(x2), Extent(packed), Extent(bias), Extent(factors), Extent(pixel),
               Extent(add), in_place ? Extent() : Extent(residual)});
  STD_TORCH_CHECK(channels > 0 || out.numel() == 0, "conv3x3: x must have a channel");
  if (out.numel() == 0) return;
  compute_or_write([args]() mutable { run(args); }, out, statistics, x, x2, packed, bias, factors, pixel, add,
                   residual);
}

void conv3x3_pack(Tensor packed, Tensor weight, int64_t tile) {
  check_tile(tile);
  const bool fits = is_here(weight) && weight.scalar_type() == ScalarType::Float && weight.dim() == 4 &&
                    weight.size(2) == 3 && weight.size(3) == 3;
  STD_TORCH_CHECK(fits, "conv3x3: weight must be float32 (Cout, Cin, 3, 3)");
  check_dense(packed, "conv3x3: packed", ScalarType::Float);
  Conv3x3PackArgs args;
  args.outs = weight.size(0);
  args.channels = weight.size(1);
  args.tile = tile;
  STD_TORCH_CHECK(packed.numel() == packed_floats(tile, args.outs, args.channels),
                  "conv3x3: packed has the wrong size");
  check_apart("conv3x3", {Extent(packed)}, {Extent(weight)});
  args.weight = static_cast<const float*>(weight.const_data_ptr());
  for (int d = 0; d < 4; ++d) args.strides[d] = weight.stride(d);
  args.out = static_cast<float*>(packed.mutable_data_ptr());
  prefer_large_pages(args.out, packed.numel());
  const int64_t panels = ceil_div(args.outs, 2 * cpu_kernels().lanes);
  torch::stable::parallel_for(
      0, panels, 1, [&args](int64_t begin, int64_t end) { cpu_kernels().conv3x3_pack(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "conv3x3_cpp(Tensor(a!) out, Tensor(b!)? statistics, Tensor x, Tensor? x2, Tensor packed, int tile, "
      "Tensor? bias, Tensor? factors, Tensor? pixel, bool activate, bool upsample, Tensor? add, "
      "Tensor? residual, float gain, int stride=1, int before=1) -> ()");
  m.def("conv3x3_pack_cpp(Tensor(a!) packed, Tensor weight, int tile) -> ()");
  m.def("conv3x3_packed_floats(int tile, int outs, int channels) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("conv3x3_cpp", TORCH_BOX(&conv3x3));
  m.impl("conv3x3_pack_cpp", TORCH_BOX(&conv3x3_pack));
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CompositeExplicitAutograd, m) {
  m.impl("conv3x3_packed_floats", TORCH_BOX(&packed_floats));
}

}  // namespace fastdiff
