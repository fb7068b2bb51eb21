// What the C++ and the CUDA binding of solver_step share: tensors are checked and put into the arguments of a
// kernel, which name them alike.
#pragma once

#include "fastdiff/row.h"
#include "tensors.h"

namespace fastdiff {

inline const float* table_of(const Tensor& table) {
  check_dense(table, "table", ScalarType::Float);
  STD_TORCH_CHECK(table.dim() == 2 && table.size(1) == k_row_width, "solver_step: table must be (rows, ",
                  static_cast<int>(k_row_width), ")");
  return static_cast<const float*>(table.const_data_ptr());
}

inline float* history_of(const OptionalTensor& history, const Tensor& x) {
  if (!history.has_value()) return nullptr;
  check_dense(*history, "history", ScalarType::Float);
  bool fits = history->dim() == x.dim() + 1;
  for (int64_t d = 0; fits && d < x.dim(); ++d) fits = history->size(d + 1) == x.size(d);
  STD_TORCH_CHECK(fits, "solver_step: history must be (K, ...) of x's shape");
  return static_cast<float*>(history->mutable_data_ptr());
}

// What is written overlaps nothing else; out may be x itself.
inline void check_steps_apart(const Tensor& out, const OptionalTensor& x0_out, const OptionalTensor& history,
                              const Tensor& x, std::initializer_list<Extent> read) {
  const Extent to(out), to_x0(x0_out), to_history(history), from(x);
  check_apart("solver_step", {to, to_x0, to_history}, read);
  check_apart("solver_step", {to_x0, to_history}, {from});
  if (to.begin != from.begin) check_apart("solver_step", {to}, {from});
}

// All but the row.
template <class Args>
Args solver_step_arguments(const Tensor& out, const OptionalTensor& x0_out, const OptionalTensor& history,
                           const Tensor& x, const OptionalTensor& m, const OptionalTensor& m_u,
                           const OptionalTensor& v, const OptionalTensor& cond, const OptionalTensor& seeds,
                           const OptionalTensor& noise, const OptionalTensor& known,
                           const OptionalTensor& mask, const OptionalTensor& known_noise,
                           const OptionalTensor& per_sample) {
  STD_TORCH_CHECK(x.dim() >= 2, "solver_step: x must be (B, ...)");
  Args args;
  args.samples = samples_of(x);
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
  args.x0_out = dense_like(x0_out, x, "x0_out");
  args.out = dense_like(out, x, "out");
  return args;
}

inline int64_t slots_of(const OptionalTensor& history) {
  return history.has_value() ? history->size(0) : 0;
}

}  // namespace fastdiff
