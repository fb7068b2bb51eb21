// fastdiff::add_noise_cuda, the CUDA backend of fastdiff/ops/add_noise.py, which checks the inputs.
#include "fastdiff/add_noise.cuh"

#include "launch.h"

namespace fastdiff {
namespace {

void add_noise(Tensor out, OptionalTensor noise_out, Tensor x0, Tensor alpha, Tensor sigma,
               OptionalTensor seeds, OptionalTensor rows, int64_t row, OptionalTensor noise, double offset) {
  STD_TORCH_CHECK(x0.dim() >= 2, "add_noise: x0 must be (B, C, ...)");
  STD_TORCH_CHECK(seeds.has_value() || (noise.has_value() && offset == 0.0),
                  "add_noise: seeds must be given, or the noise");
  device::AddNoiseLaunch args;
  args.samples = samples_of(x0);
  const int64_t batch = args.samples.batch;
  args.channel = x0.size(1) > 0 ? std::max<int64_t>(1, args.samples.count / x0.size(1)) : 1;
  args.x0 = source_of(x0, x0, "x0");
  args.noise = source_of(noise, x0, "noise");
  args.alpha = dense_floats(alpha, "alpha", batch);
  args.sigma = dense_floats(sigma, "sigma", batch);
  args.seeds = dense_integers(seeds, "seeds", batch);
  args.rows = dense_integers(rows, "row", batch);
  args.row = row;
  args.offset = static_cast<float>(offset);
  args.out = dense_like(out, x0, "out");
  args.noise_out = dense_like(noise_out, x0, "noise_out");
  launch(device::add_noise_kernel, args, args.samples, x0);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "add_noise_cuda(Tensor(a!) out, Tensor(b!)? noise_out, Tensor x0, Tensor alpha, Tensor sigma, Tensor? "
      "seeds, Tensor? rows, int row, Tensor? noise, float offset) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("add_noise_cuda", TORCH_BOX(&add_noise));
}

}  // namespace fastdiff
