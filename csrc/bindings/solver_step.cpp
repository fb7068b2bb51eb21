// fastdiff::solver_step_cpp, the C++ backend of fastdiff/ops/solver_step.py.
#include "solver_step.h"

#include <cmath>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

bool used(const float* row, std::initializer_list<int> columns) {
  return std::any_of(columns.begin(), columns.end(), [row](int column) { return row[column] != 0.0f; });
}

void check_slot(const float* row, int column, int64_t slots) {
  STD_TORCH_CHECK(
      row[column] >= 0 && row[column] < static_cast<float>(slots) && row[column] == std::floor(row[column]),
      "solver_step: history must have the slots of the row, got ", slots, " slots");
}

// Which tensors the caller gave; one without elements has no address.
struct Given {
  bool m, m_u, v, cond, seeds, noise, known, mask, known_noise, per_sample;
};

// Every tensor that the row's coefficients read is there, every slot exists.
void check_needs(const float* row, const Given& given, int64_t slots) {
  const auto need = [](bool needed, bool given, const char* name) {
    STD_TORCH_CHECK(!needed || given, "solver_step: ", name, " must be given, because the row uses it");
  };
  const bool m = used(row, {k_u_m, k_p_m, k_q_m});
  need(m && (row[k_g_c] != 0.0f || given.per_sample), given.m, "m");
  need((m && (row[k_g_u] != 0.0f || given.per_sample)) || used(row, {k_q_u, k_p_u}), given.m_u, "m_u");
  need(used(row, {k_u_c, k_p_c, k_d}), given.cond, "cond");
  const bool noisy = row[k_s] != 0.0f, region = given.mask && row[k_i_s] != 0.0f;
  need(noisy && row[k_l_1] != 0.0f, given.v, "v");
  need(given.mask && row[k_i_y] != 0.0f, given.known, "known");
  need(noisy && !given.noise, given.seeds, "seeds");
  need(region && !given.known_noise, given.seeds, "seeds");
  if (given.seeds && (noisy || region)) {
    for (const int name : {k_noise_row, k_stream})
      STD_TORCH_CHECK(row[name] >= 0.0f && row[name] < 0x1p32f && row[name] == std::floor(row[name]),
                      "solver_step: noise_row and stream must be whole numbers in [0, 2**32), got ",
                      row[name]);
  }
  for (int k = 0; k < kHistories; ++k) {
    if (row[k_h_0 + k] != 0.0f) check_slot(row, k_slot_0 + k, slots);
  }
  for (int k = 0; k < kPushes; ++k) {
    const float push = row[k_push_0 + 2 * k];
    const int what = push >= 0.0f && push < 4.0f ? static_cast<int>(push) : -1;
    STD_TORCH_CHECK(static_cast<float>(what) == push,
                    "solver_step: push must be 0 (none), 1 (x), 2 (x0) or 3 (eps), got ", push);
    if (what != k_push_none) check_slot(row, k_push_0_slot + 2 * k, slots);
  }
}

const float* row_of(const Tensor& table, const OptionalTensor& counter, int64_t row) {
  const float* const rows = table_of(table);
  if (const int64_t* index = dense_integers(counter, "counter", 1)) row = *index;
  STD_TORCH_CHECK(row >= 0 && row < table.size(0), "solver_step: row must be in [0, ", table.size(0),
                  "), got ", row);
  return rows + row * k_row_width;
}

void solver_step(Tensor out, OptionalTensor x0_out, OptionalTensor history, Tensor table,
                 OptionalTensor counter, int64_t row, Tensor x, OptionalTensor m, OptionalTensor m_u,
                 OptionalTensor v, OptionalTensor cond, OptionalTensor seeds, OptionalTensor noise,
                 OptionalTensor known, OptionalTensor mask, OptionalTensor known_noise,
                 OptionalTensor per_sample) {
  auto args = solver_step_arguments<SolverStepArgs>(out, x0_out, history, x, m, m_u, v, cond, seeds, noise,
                                                    known, mask, known_noise, per_sample);
  check_steps_apart(
      out, x0_out, history, x,
      {Extent(m), Extent(m_u), Extent(v), Extent(cond), Extent(noise), Extent(known), Extent(mask),
       Extent(known_noise), Extent(per_sample), Extent(table), Extent(seeds), Extent(counter)});
  args.row = row_of(table, counter, row);
  check_needs(
      args.row,
      {m.has_value(), m_u.has_value(), v.has_value(), cond.has_value(), seeds.has_value(), noise.has_value(),
       known.has_value(), mask.has_value(), known_noise.has_value(), per_sample.has_value()},
      slots_of(history));
  if (x.numel() == 0) return;
  for_tiles(args.samples,
            [&args](int64_t begin, int64_t end) { cpu_kernels().solver_step(args, begin, end); });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "solver_step_cpp(Tensor(a!) out, Tensor(b!)? x0_out, Tensor(c!)? history, Tensor table, Tensor? "
      "counter, int row, "
      "Tensor x, Tensor? m=None, Tensor? m_u=None, Tensor? v=None, Tensor? cond=None, Tensor? seeds=None, "
      "Tensor? noise=None, Tensor? known=None, Tensor? mask=None, Tensor? known_noise=None, "
      "Tensor? per_sample=None) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("solver_step_cpp", TORCH_BOX(&solver_step));
}

}  // namespace fastdiff
