// fastdiff::solver_step_cuda, the CUDA backend of fastdiff/ops/solver_step.py, which checks the inputs.
#include "fastdiff/solver_step.cuh"

#include "../bindings/solver_step.h"
#include "launch.h"

namespace fastdiff {
namespace {

void solver_step(Tensor out, OptionalTensor x0_out, OptionalTensor history, Tensor table,
                 OptionalTensor counter, int64_t row, Tensor x, OptionalTensor m, OptionalTensor m_u,
                 OptionalTensor v, OptionalTensor cond, OptionalTensor seeds, OptionalTensor noise,
                 OptionalTensor known, OptionalTensor mask, OptionalTensor known_noise,
                 OptionalTensor per_sample) {
  auto args = solver_step_arguments<device::SolverStepLaunch>(out, x0_out, history, x, m, m_u, v, cond, seeds,
                                                              noise, known, mask, known_noise, per_sample);
  check_steps_apart(
      out, x0_out, history, x,
      {Extent(m), Extent(m_u), Extent(v), Extent(cond), Extent(noise), Extent(known), Extent(mask),
       Extent(known_noise), Extent(per_sample), Extent(table), Extent(seeds), Extent(counter)});
  args.table = table_of(table);
  args.table_rows = table.size(0);
  args.counter = dense_integers(counter, "counter", 1);
  args.row = row;
  args.slots = slots_of(history);
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
