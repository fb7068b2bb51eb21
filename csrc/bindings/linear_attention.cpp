// fastdiff::linear_attention_cpp, the C++ backend of fastdiff/ops/linear_attention.py.
#include "fastdiff/attention.h"
#include "fastdiff/cpu_kernels.h"
#include "matrices.h"
#include "scratch.h"
#include "tape.h"

namespace fastdiff {
namespace {

void run(LinearAttentionArgs args) {
  const Scratch contexts(args.q.count * linear_attention_context_size(args));
  args.contexts = contexts.data();
  const auto each = [&args](auto kernel, int64_t units) {
    torch::stable::parallel_for(0, units, 1, [&args, kernel](int64_t begin, int64_t end) {
      kernel(args, scratch_of(linear_attention_scratch(args)), begin, end);
    });
  };
  each(cpu_kernels().linear_attention_context, args.q.count);
  each(cpu_kernels().linear_attention, args.q.count * ((args.q.rows + kLinearQueries - 1) / kLinearQueries));
}

void linear_attention(Tensor out, Tensor q, Tensor k, Tensor v, double scale, OptionalTensor memory_k,
                      OptionalTensor memory_v) {
  LinearAttentionArgs args;
  args.q = matrices_of(q, "q");
  args.k = matrices_of(k, "k");
  args.v = matrices_of(v, "v");
  args.out = written_matrices_of(out, "out");
  check_attention(args.q, args.k, args.v, args.out, "linear_attention");
  STD_TORCH_CHECK(same_heads(q, k) && same_heads(q, v) && same_heads(q, out),
                  "linear_attention: q, k, v and out must have the same leading dimensions");
  check_apart("linear_attention", {Extent(out)},
              {Extent(q), Extent(k), Extent(v), Extent(memory_k), Extent(memory_v)});
  STD_TORCH_CHECK(memory_k.has_value() == memory_v.has_value(),
                  "linear_attention: memory_k and memory_v must come together");
  if (memory_k.has_value()) {
    args.memory_k = matrices_of(*memory_k, "memory_k");
    args.memory_v = matrices_of(*memory_v, "memory_v");
    check_attention(args.q, args.memory_k, args.memory_v, args.out, "linear_attention");
    STD_TORCH_CHECK(same_heads(q, *memory_k) && same_heads(q, *memory_v),
                    "linear_attention: memory must have the leading dimensions of q");
  }
  args.out_data = out.mutable_data_ptr();
  args.scale = static_cast<float>(scale);
  if (out.numel() > 0) compute_or_write([args] { run(args); }, out, q, k, v, memory_k, memory_v);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "linear_attention_cpp(Tensor(a!) out, Tensor q, Tensor k, Tensor v, float scale, Tensor? "
      "memory_k=None, "
      "Tensor? memory_v=None) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("linear_attention_cpp", TORCH_BOX(&linear_attention));
}

}  // namespace fastdiff
