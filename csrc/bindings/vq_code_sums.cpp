// fastdiff::vq_code_sums_cpp, the C++ backend of fastdiff/ops/vq_code_sums.py.
#include <vector>

#include "fastdiff/cpu_kernels.h"
#include "tensors.h"

namespace fastdiff {
namespace {

struct Order {
  std::vector<int64_t> starts;  // rows of code k are rows[starts[k] .. starts[k + 1])
  std::vector<int64_t> rows;
};

// The rows sorted by their code, those of one code in their own order.
Order order_by_code(const int64_t* index, int64_t rows, int64_t codes) {
  Order order{std::vector<int64_t>(codes + 1), std::vector<int64_t>(rows)};
  for (int64_t i = 0; i < rows; ++i) {
    STD_TORCH_CHECK(index[i] >= 0 && index[i] < codes, "vq_code_sums: index must be in [0, ", codes, ")");
    ++order.starts[index[i] + 1];
  }
  for (int64_t k = 0; k < codes; ++k) order.starts[k + 1] += order.starts[k];
  std::vector<int64_t> next(order.starts.begin(), order.starts.end() - 1);
  for (int64_t i = 0; i < rows; ++i) order.rows[next[index[i]]++] = i;
  return order;
}

void vq_code_sums(Tensor sums, Tensor counts, Tensor z, Tensor index) {
  VqCodeSumsArgs args;
  args.z = rows_of(z, "z");
  check_dense(sums, "sums", ScalarType::Float);
  check_dense(counts, "counts", ScalarType::Long);
  check_dense(index, "index", ScalarType::Long);
  STD_TORCH_CHECK(counts.dim() == 1 && sums.dim() == 2, "vq_code_sums: sums must be (codes, width)");
  const int64_t codes = counts.numel();
  STD_TORCH_CHECK(sums.size(0) == codes && sums.size(1) == args.z.width && index.numel() == args.z.count,
                  "vq_code_sums: sums must be (codes, width), index must have one code per row");
  check_apart("vq_code_sums", {Extent(sums), Extent(counts)}, {Extent(z), Extent(index)});
  const Order order = order_by_code(static_cast<const int64_t*>(index.const_data_ptr()), args.z.count, codes);
  args.starts = order.starts.data();
  args.order = order.rows.data();
  args.sums = static_cast<float*>(sums.mutable_data_ptr());
  int64_t* const number = static_cast<int64_t*>(counts.mutable_data_ptr());
  for (int64_t k = 0; k < codes; ++k) number[k] = args.starts[k + 1] - args.starts[k];
  torch::stable::parallel_for(
      0, codes, 1, [&args](int64_t begin, int64_t end) { cpu_kernels().vq_code_sums(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("vq_code_sums_cpp(Tensor(a!) sums, Tensor(b!) counts, Tensor z, Tensor index) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("vq_code_sums_cpp", TORCH_BOX(&vq_code_sums));
}

}  // namespace fastdiff
