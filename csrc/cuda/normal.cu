// fastdiff::normal_cuda, the CUDA backend of fastdiff/ops/normal.py.
#include "fastdiff/normal.cuh"

#include "../bindings/normal.h"
#include "launch.h"

namespace fastdiff {
namespace {

void normal(Tensor out, Tensor seeds, OptionalTensor rows, int64_t row, int64_t stream) {
  const auto args = normal_arguments<device::NormalLaunch>(out, seeds, rows, row, stream);
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
