// What the C++ and the CUDA binding of vq_nearest share: tensors are checked and put into the arguments of a
// kernel, which name them alike.
#pragma once

#include <limits>

#include "tensors.h"

namespace fastdiff {

// What is read, and what is written for each row. A kernel counts codes in 32 bits, up to `spare` beyond the
// last one.
template <class Args>
void take_rows_and_codes(Args& args, const Tensor& index, const OptionalTensor& quantised,
                         const OptionalTensor& distance, const OptionalTensor& counts, const Tensor& z,
                         const Tensor& codebook, int64_t spare) {
  args.z = rows_of(z, "z");
  args.codes = rows_of(codebook, "codebook");
  const int64_t rows = args.z.count, codes = args.codes.count;
  STD_TORCH_CHECK(codebook.dim() == 2 && codes > 0,
                  "vq_nearest: codebook must be (codes, width) with at least one code");
  const int64_t most = std::numeric_limits<int32_t>::max() - spare;
  STD_TORCH_CHECK(codes <= most, "vq_nearest: codebook must have at most ", most, " codes, got ", codes);
  STD_TORCH_CHECK(args.z.width == args.codes.width && args.z.width > 0,
                  "vq_nearest: z must have the width of the codebook");
  STD_TORCH_CHECK(z.get_device() == codebook.get_device(), "vq_nearest: z must be where the codebook is");
  // Codes are counted after they were written: in memory that two results share they may be codes that do not
  // exist.
  check_apart("vq_nearest", {Extent(index), Extent(quantised), Extent(distance), Extent(counts)},
              {Extent(z), Extent(codebook)});
  check_dense(index, "index", ScalarType::Long);
  STD_TORCH_CHECK(index.numel() == rows, "vq_nearest: index must have one number per row");
  args.index = static_cast<int64_t*>(index.mutable_data_ptr());
  if (distance.has_value()) {
    check_dense(*distance, "distance", ScalarType::Float);
    STD_TORCH_CHECK(distance->numel() == rows, "vq_nearest: distance must have one number per row");
    args.distance = static_cast<float*>(distance->mutable_data_ptr());
  }
  if (quantised.has_value()) {
    check_dense(*quantised, "quantised", codebook.scalar_type());
    STD_TORCH_CHECK(quantised->numel() == z.numel(), "vq_nearest: quantised must have the shape of z");
    args.quantised = quantised->mutable_data_ptr();
  }
}

// Where the counts of all codes go, or null.
inline int64_t* counts_of(const OptionalTensor& counts, int64_t codes) {
  if (!counts.has_value()) return nullptr;
  check_dense(*counts, "counts", ScalarType::Long);
  STD_TORCH_CHECK(counts->dim() == 1 && counts->numel() == codes, "vq_nearest: counts must be (codes,)");
  return static_cast<int64_t*>(counts->mutable_data_ptr());
}

}  // namespace fastdiff
