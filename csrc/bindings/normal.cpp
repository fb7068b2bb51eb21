// fastdiff::normal_cpp, the C++ backend of fastdiff/ops/normal.py.
#include "normal.h"

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

void normal(Tensor out, Tensor seeds, OptionalTensor rows, int64_t row, int64_t stream) {
  const auto args = normal_arguments<NormalArgs>(out, seeds, rows, row, stream);
  for_tiles(args.samples, [&args](int64_t begin, int64_t end) { cpu_kernels().normal(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("normal_cpp(Tensor(a!) out, Tensor seeds, Tensor? rows, int row, int stream) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("normal_cpp", TORCH_BOX(&normal));
}

}  // namespace fastdiff
