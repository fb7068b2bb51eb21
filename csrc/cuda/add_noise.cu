// fastdiff::add_noise_cuda, the CUDA backend of fastdiff/ops/add_noise.py, which checks the inputs.
#include "fastdiff/add_noise.cuh"

#include "../bindings/add_noise.h"
#include "launch.h"

namespace fastdiff {
namespace {

void add_noise(Tensor out, OptionalTensor noise_out, Tensor x0, Tensor alpha, Tensor sigma,
               OptionalTensor seeds, OptionalTensor rows, int64_t row, OptionalTensor noise, double offset) {
  const auto args = add_noise_arguments<device::AddNoiseLaunch>(out, noise_out, x0, alpha, sigma, seeds, rows,
                                                                row, noise, offset);
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
