// fastdiff::attention_cpp, the C++ backend of fastdiff/ops/attention.py.
#include "fastdiff/attention.h"

#include "fastdiff/cpu_kernels.h"
#include "matrices.h"
#include "scratch.h"
#include "tape.h"

namespace fastdiff {
namespace {

void attention(Tensor out, OptionalTensor log_sums, Tensor q, Tensor k, Tensor v, double scale) {
  AttentionArgs args;
  args.q = matrices_of(q, "q");
  args.k = matrices_of(k, "k");
  args.v = matrices_of(v, "v");
  args.out = written_matrices_of(out, "out");
  STD_TORCH_CHECK(same_heads(q, k) && same_heads(q, v) && same_heads(q, out),
                  "attention: q, k, v and out must have the same leading dimensions");
  check_attention(args.q, args.k, args.v, args.out, "attention");
  check_apart("attention", {Extent(out), Extent(log_sums)}, {Extent(q), Extent(k), Extent(v)});
  args.out_data = out.mutable_data_ptr();
  args.scale = static_cast<float>(scale);
  if (log_sums.has_value()) {
    check_dense(*log_sums, "log_sums", ScalarType::Float);
    STD_TORCH_CHECK(log_sums->numel() == args.q.count * args.q.rows,
                    "attention: log_sums must have one number per query");
    args.log_sums = static_cast<float*>(log_sums->mutable_data_ptr());
  }
  if (out.numel() == 0) return;
  const auto call = [args] {
    torch::stable::parallel_for(0, attention_units(args), 1, [&args](int64_t begin, int64_t end) {
      cpu_kernels().attention(args, scratch_of(attention_scratch(args)), begin, end);
    });
  };
  compute_or_write(call, out, log_sums, q, k, v);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "attention_cpp(Tensor(a!) out, Tensor(b!)? log_sums, Tensor q, Tensor k, Tensor v, float scale) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("attention_cpp", TORCH_BOX(&attention));
}

}  // namespace fastdiff
