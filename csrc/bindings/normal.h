// What the C++ and the CUDA binding of normal share.
#pragma once

#include "tensors.h"

namespace fastdiff {

template <class Args>
Args normal_arguments(const Tensor& out, const Tensor& seeds, const OptionalTensor& rows, int64_t row,
                      int64_t stream) {
  STD_TORCH_CHECK(out.dim() >= 1, "normal: out must be (B, ...)");
  check_row(row, "normal");
  STD_TORCH_CHECK(stream >= 0 && stream < (int64_t{1} << 32), "normal: stream must be in [0, 2**32), got ",
                  stream);
  check_dense(out, "out", ScalarType::Float);
  Args args;
  args.samples = samples_of(out);
  args.seeds = dense_integers(seeds, "seeds", args.samples.batch);
  args.rows = dense_integers(rows, "row", args.samples.batch);
  check_apart("normal", {Extent(out)}, {Extent(seeds), Extent(rows)});
  args.row = row;
  args.stream = static_cast<uint32_t>(stream);
  args.out = static_cast<float*>(out.mutable_data_ptr());
  return args;
}

}  // namespace fastdiff
