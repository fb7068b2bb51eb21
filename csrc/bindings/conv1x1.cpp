// fastdiff::conv1x1_cpp and conv1x1_pack_cpp, the C++ backend of fastdiff/ops/conv1x1.py.
#include "fastdiff/cpu_kernels.h"
#include "feature_maps.h"
#include "scratch.h"
#include "tape.h"

namespace fastdiff {
namespace {

constexpr int64_t kMostPixels = 128, kFewPixels = 48;  // of a block

int64_t packed_floats(int64_t outs, int64_t channels) {
  check_channels(outs, channels, "conv1x1");
  return ceil_div(outs, cpu_kernels().lanes) * cpu_kernels().lanes * channels;
}

// A float32 map (B, channels, ...) whose channels are last, of x's batch and size; null for one that is not
// there.
const float* map_like(const OptionalTensor& t, const Tensor& x, int64_t channels, const char* name) {
  if (!t.has_value()) return nullptr;
  bool fits = is_here(*t) && t->scalar_type() == ScalarType::Float && t->dim() == x.dim();
  for (int64_t d = 0; fits && d < x.dim(); ++d) fits = t->size(d) == (d == 1 ? channels : x.size(d));
  STD_TORCH_CHECK(fits && dense_in_order(*t, true), "conv1x1: ", name,
                  " must be a float32 map of the expected shape, channels last");
  return static_cast<const float*>(t->const_data_ptr());
}

// How many stretches a block takes and in how many parts its output channels are cut. Threads share the
// pixels where each gets enough of them, since every block reads the weights it multiplies; else the weights.
void plan(Conv1x1Args& args) {
  const int64_t threads = torch::stable::get_num_threads(), pixels = args.map.width;
  const int64_t stretches = args.map.batch * conv1x1_stretches(pixels);
  const int64_t most = std::max<int64_t>(1, kMostPixels / std::min(pixels, kConv1x1Stretch));
  int64_t blocks = ceil_div(stretches, most);
  if (args.map.batch * pixels >= threads * kFewPixels) blocks = ceil_div(blocks, threads) * threads;
  args.block = ceil_div(stretches, std::min(blocks, stretches));
  const int64_t panels = ceil_div(args.map.outs, 2 * cpu_kernels().lanes);
  args.parts = std::min(panels, std::max<int64_t>(1, threads / ceil_div(stretches, args.block)));
}

void run(Conv1x1Args& args) {
  plan(args);
  const CpuKernels& kernels = cpu_kernels();
  const int64_t stretches = args.map.batch * conv1x1_stretches(args.map.width);
  const int64_t units = ceil_div(stretches, args.block) * args.parts;
  const int64_t size = ceil_div(conv1x1_scratch_floats(args), 16) * 16;
  const int64_t slots = std::min<int64_t>(torch::stable::get_num_threads(), units);
  float* const scratch = scratch_of(slots * size);
  in_slots(slots, units, [&](int64_t slot, int64_t begin, int64_t end) {
    kernels.conv1x1(args, scratch + slot * size, begin, end);
  });
}

void conv1x1(Tensor out, OptionalTensor statistics, Tensor x, OptionalTensor x2, Tensor packed,
             OptionalTensor bias, OptionalTensor factors, OptionalTensor pixel, bool activate,
             OptionalTensor add, OptionalTensor residual, double gain) {
  STD_TORCH_CHECK(x.dim() >= 2 && out.dim() == x.dim(), "conv1x1: x and out must be (B, C, ...)");
  Conv1x1Args args;
  Conv3x3Args& map = args.map;
  map.tile = 1;
  map.batch = x.size(0);
  map.channels = x.size(1);
  map.channels2 = x2.has_value() && x2->dim() == x.dim() ? x2->size(1) : 0;
  map.outs = out.size(1);
  map.height = map.width = 1;
  for (int64_t d = 2; d < x.dim(); ++d) map.width = times(map.width, x.size(d));
  map.activate = activate;
  map.gain = static_cast<float>(gain);
  const int64_t channels = map.channels + map.channels2;
  map.x = map_like(x, x, map.channels, "x");
  map.x2 = map_like(x2, x, map.channels2, "x2");
  map.out = const_cast<float*>(map_like(out, x, map.outs, "out"));
  map.residual = map_like(residual, x, map.outs, "residual");
  check_dense(packed, "conv1x1: packed", ScalarType::Float);
  STD_TORCH_CHECK(packed.numel() == packed_floats(map.outs, channels),
                  "conv1x1: packed must be the packed weight of these channels");
  map.weight = static_cast<const float*>(packed.const_data_ptr());
  map.bias = dense_floats(bias, "conv1x1: bias", map.outs);
  if (factors.has_value())
    map.factors = floats_of_shape(*factors, {map.batch, 2, channels}, "conv1x1: factors");
  if (pixel.has_value()) {
    check_dense(*pixel, "conv1x1: pixel", ScalarType::Float);
    STD_TORCH_CHECK(pixel->numel() == map.batch * map.width && factors.has_value(),
                    "conv1x1: pixel must have one number per pixel, beside factors");
    map.pixel = static_cast<const float*>(pixel->const_data_ptr());
  }
  FeatureMap outs;
  outs.batch = map.batch;
  outs.channels = map.outs;
  map.add = factor_rows(add, outs, "conv1x1: add", map.add_stride);
  if (statistics.has_value())
    map.statistics = floats_of_shape(*statistics, {map.batch, conv1x1_stretches(map.width), 3, map.outs},
                                     "conv1x1: statistics");
  const bool in_place = map.residual == map.out;
  check_apart("conv1x1", {Extent(out), Extent(statistics)},
              {Extent(x), Extent(x2), Extent(packed), Extent(bias), Extent(factors), Extent(pixel),
               Extent(add), in_place ? Extent() : Extent(residual)});
  STD_TORCH_CHECK(channels > 0 || out.numel() == 0, "conv1x1: x must have a channel");
  if (out.numel() == 0) return;
  compute_or_write([args]() mutable { run(args); }, out, statistics, x, x2, packed, bias, factors, pixel, add,
                   residual);
}

void conv1x1_pack(Tensor packed, Tensor weight) {
  const bool fits = is_here(weight) && weight.scalar_type() == ScalarType::Float && weight.dim() == 2;
  STD_TORCH_CHECK(fits, "conv1x1: weight must be float32 (Cout, Cin)");
  check_dense(packed, "conv1x1: packed", ScalarType::Float);
  Conv1x1PackArgs args;
  args.outs = weight.size(0);
  args.channels = weight.size(1);
  STD_TORCH_CHECK(packed.numel() == packed_floats(args.outs, args.channels),
                  "conv1x1: packed has the wrong size");
  check_apart("conv1x1", {Extent(packed)}, {Extent(weight)});
  args.weight = static_cast<const float*>(weight.const_data_ptr());
  for (int d = 0; d < 2; ++d) args.strides[d] = weight.stride(d);
  args.out = static_cast<float*>(packed.mutable_data_ptr());
  prefer_large_pages(args.out, packed.numel());
  torch::stable::parallel_for(
      0, ceil_div(args.outs, 2 * cpu_kernels().lanes), 1,
      [&args](int64_t begin, int64_t end) { cpu_kernels().conv1x1_pack(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "conv1x1_cpp(Tensor(a!) out, Tensor(b!)? statistics, Tensor x, Tensor? x2, Tensor packed, "
      "Tensor? bias, Tensor? factors, Tensor? pixel, bool activate, Tensor? add, Tensor? residual, "
      "float gain) -> ()");
  m.def("conv1x1_pack_cpp(Tensor(a!) packed, Tensor weight) -> ()");
  m.def("conv1x1_packed_floats(int outs, int channels) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("conv1x1_cpp", TORCH_BOX(&conv1x1));
  m.impl("conv1x1_pack_cpp", TORCH_BOX(&conv1x1_pack));
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CompositeExplicitAutograd, m) {
  m.impl("conv1x1_packed_floats", TORCH_BOX(&packed_floats));
}

}  // namespace fastdiff
