// fastdiff::normal_cuda, the CUDA backend of fastdiff/ops/normal.py.
#include "fastdiff/normal.cuh"

#include "launch.h"

namespace fastdiff {
namespace {

void normal(Tensor out, Tensor seeds, OptionalTensor rows, int64_t row, int64_t stream) {
  STD_TORCH_CHECK(out.dim() >= 1, "normal: out must be (B, ...)");
  check_dense(out, "out", ScalarType::Float);
  device::NormalLaunch args;
  args.samples = samples_of(out);
  args.seeds = dense_integers(seeds, "seeds", args.samples.batch);
  args.rows = dense_integers(rows, "row", args.samples.batch);
  args.row = row;
  args.stream = static_cast<uint32_t>(stream);
  args.out = static_cast<float*>(out.mutable_data_ptr());
  launch(device::normal_kernel, args, args.samples, out);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("normal_cuda(Tensor(a!) out, Tensor seeds, Tensor? rows, int row, int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("normal_cuda", TORCH_BOX(&normal));
}

}  // namespace fastdiff
