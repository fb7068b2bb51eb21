// fastdiff::add_noise_cpp, the C++ backend of fastdiff/ops/add_noise.py.
#include "add_noise.h"

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

void add_noise(Tensor out, OptionalTensor noise_out, Tensor x0, Tensor alpha, Tensor sigma,
               OptionalTensor seeds, OptionalTensor rows, int64_t row, OptionalTensor noise, double offset) {
  const auto args =
      add_noise_arguments<AddNoiseArgs>(out, noise_out, x0, alpha, sigma, seeds, rows, row, noise, offset);
  for_tiles(args.samples, [&args](int64_t begin, int64_t end) { cpu_kernels().add_noise(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "add_noise_cpp(Tensor(a!) out, Tensor(b!)? noise_out, Tensor x0, Tensor alpha, Tensor sigma, Tensor? "
      "seeds, "
      "Tensor? rows, int row, Tensor? noise, float offset) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("add_noise_cpp", TORCH_BOX(&add_noise));
}

}  // namespace fastdiff
