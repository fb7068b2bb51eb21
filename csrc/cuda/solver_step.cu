// fastdiff::solver_step_cuda, the CUDA backend of fastdiff/ops/solver_step.py, which checks the inputs.
#include "fastdiff/solver_step.cuh"

#include "launch.h"

namespace fastdiff {
namespace {

float* history_of(const OptionalTensor& history, const Tensor& x) {
  if (!history.has_value()) return nullptr;
  check_dense(*history, "history", ScalarType::Float);
  bool fits = history->dim() == x.dim() + 1;
  for (int64_t d = 0; fits && d < x.dim(); ++d) fits = history->size(d + 1) == x.size(d);
  STD_TORCH_CHECK(fits, "solver_step: history must be (K, ...) of x's shape");
  return static_cast<float*>(history->mutable_data_ptr());
}

void solver_step(Tensor out, OptionalTensor x0_out, OptionalTensor history, Tensor table,
                 OptionalTensor counter, int64_t row, Tensor x, OptionalTensor m, OptionalTensor m_u,
                 OptionalTensor v, OptionalTensor cond, OptionalTensor seeds, OptionalTensor noise,
                 OptionalTensor known, OptionalTensor mask, OptionalTensor known_noise,
                 OptionalTensor per_sample) {
  STD_TORCH_CHECK(x.dim() >= 2, "solver_step: x must be (B, ...)");
  check_dense(table, "table", ScalarType::Float);
  STD_TORCH_CHECK(table.dim() == 2 && table.size(1) == k_row_width, "solver_step: table must be (rows, ",
                  static_cast<int>(k_row_width), ")");
  device::SolverStepLaunch args;
  args.samples = samples_of(x);
  args.table = static_cast<const float*>(table.const_data_ptr());
  args.table_rows = table.size(0);
  args.counter = dense_integers(counter, "counter", 1);
  args.row = row;
  args.per_sample = dense_floats(per_sample, "per_sample", args.samples.batch, k_per_sample_width);
  args.seeds = dense_integers(seeds, "seeds", args.samples.batch);
  args.m = source_of(m, x, "m");
  args.m_u = source_of(m_u, x, "m_u");
  args.v = source_of(v, x, "v");
  args.cond = source_of(cond, x, "cond");
  args.known = source_of(known, x, "known");
  args.mask = source_of(mask, x, "mask");
  args.noise = source_of(noise, x, "noise");
  args.known_noise = source_of(known_noise, x, "known_noise");
  args.x = dense_like(x, x, "x");
  args.history = history_of(history, x);
  args.slots = history.has_value() ? history->size(0) : 0;
  args.x0_out = dense_like(x0_out, x, "x0_out");
  args.out = dense_like(out, x, "out");
  launch(device::solver_step_kernel, args, args.samples, x);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "solver_step_cuda(Tensor(a!) out, Tensor(b!)? x0_out, Tensor(c!)? history, Tensor table, Tensor? "
      "counter, int row, Tensor x, Tensor? m=None, Tensor? m_u=None, Tensor? v=None, Tensor? cond=None, "
      "Tensor? seeds=None, Tensor? noise=None, Tensor? known=None, Tensor? mask=None, "
      "Tensor? known_noise=None, Tensor? per_sample=None) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CUDA, m) {
  m.impl("solver_step_cuda", TORCH_BOX(&solver_step));
}

}  // namespace fastdiff
