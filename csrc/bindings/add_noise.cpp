// fastdiff::add_noise_cpp, the C++ backend of fastdiff/ops/add_noise.py.
#include "fastdiff/cpu_kernels.h"
#include "tensors.h"

namespace fastdiff {
namespace {

void add_noise(Tensor out, OptionalTensor noise_out, Tensor x0, Tensor alpha, Tensor sigma, OptionalTensor seeds,
               OptionalTensor rows, int64_t row, OptionalTensor noise, double offset) {
  AddNoiseArgs args;
  args.samples = samples_of(x0);
  const int64_t batch = args.samples.batch;
  args.channel = x0.size(1) > 0 ? args.samples.count / x0.size(1) : 1;
  args.x0 = source_of(x0, args.samples, "x0");
  args.noise = source_of(noise, args.samples, "noise");
  args.alpha = dense_floats(alpha, "alpha", batch);
  args.sigma = dense_floats(sigma, "sigma", batch);
  args.seeds = dense_integers(seeds, "seeds", batch);
  args.rows = dense_integers(rows, "row", batch);
  args.row = row;
  args.offset = static_cast<float>(offset);
  args.out = dense_floats(out, "out", x0.numel());
  args.noise_out = dense_floats(noise_out, "noise_out", x0.numel());
  STD_TORCH_CHECK(args.seeds || (args.noise && args.offset == 0.0f), "add_noise: seeds must be given, or the noise");
  for_tiles(args.samples, [&args](int64_t begin, int64_t end) { cpu_kernels().add_noise(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "add_noise_cpp(Tensor(a!) out, Tensor(b!)? noise_out, Tensor x0, Tensor alpha, Tensor sigma, Tensor? seeds, "
      "Tensor? rows, int row, Tensor? noise, float offset) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) { m.impl("add_noise_cpp", TORCH_BOX(&add_noise)); }

}  // namespace fastdiff
