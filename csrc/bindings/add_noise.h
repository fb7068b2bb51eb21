// What the C++ and the CUDA binding of add_noise share: tensors are checked and put into the arguments of a
// kernel, which name them alike.
#pragma once

#include "tensors.h"

namespace fastdiff {

template <class Args>
Args add_noise_arguments(const Tensor& out, const OptionalTensor& noise_out, const Tensor& x0,
                         const Tensor& alpha, const Tensor& sigma, const OptionalTensor& seeds,
                         const OptionalTensor& rows, int64_t row, const OptionalTensor& noise,
                         double offset) {
  STD_TORCH_CHECK(x0.dim() >= 2, "add_noise: x0 must be (B, C, ...)");
  STD_TORCH_CHECK(seeds.has_value() || (noise.has_value() && offset == 0.0),
                  "add_noise: seeds must be given, or the noise");
  check_row(row, "add_noise");
  const bool in_place = out.const_data_ptr() == x0.const_data_ptr() && x0.is_contiguous() &&
                        x0.scalar_type() == ScalarType::Float;
  check_apart("add_noise", {Extent(out), Extent(noise_out)},
              {in_place ? Extent() : Extent(x0), Extent(noise), Extent(alpha), Extent(sigma), Extent(seeds),
               Extent(rows)});
  check_apart("add_noise", {Extent(noise_out)}, {Extent(x0)});
  Args args;
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
  return args;
}

}  // namespace fastdiff
