// solver_step: a block loads the row into shared memory, then each thread steps four elements; see
// fastdiff/ops/row.py. What the host could not look at without waiting (a counter or slot out of range, a
// tensor that the row reads and nobody gave) makes the result NaN; nothing is read or written out of bounds.
#pragma once

#include "fastdiff/four.cuh"
#include "fastdiff/row.h"

namespace fastdiff::device {

struct SolverStepLaunch {
  Samples samples;
  const float* table = nullptr;
  int64_t table_rows = 0;
  const int64_t* counter = nullptr;  // null: `row`
  int64_t row = 0;
  const float* per_sample = nullptr;
  const int64_t* seeds = nullptr;
  Source m, m_u, v, cond, known, mask, noise, known_noise;
  const float* x = nullptr;
  float* history = nullptr;
  int64_t slots = 0;
  float* x0_out = nullptr;
  float* out = nullptr;
};

// The row, in shared memory.
struct StepRow {
  float c[k_row_width];
  float valid;
};

// Before the barrier: thread i loads column i.
FASTDIFF_HD void load_row(const SolverStepLaunch& args, int thread, StepRow& row) {
  const int64_t index = args.counter ? *args.counter : args.row;
  const bool valid = index >= 0 && index < args.table_rows;
  if (thread < k_row_width) row.c[thread] = valid ? args.table[index * k_row_width + thread] : 0.0f;
  if (thread == 0) row.valid = valid ? 1.0f : 0.0f;
}

// The part of the row that may differ from sample to sample.
struct Weights {
  float gain, g_c, g_u, lo, hi, rho;

  FASTDIFF_HD Weights(const StepRow& row, const float* sample)
      : gain(sample ? sample[k_sample_gain] : row.c[k_gain]),
        g_c(sample ? sample[k_sample_g_c] : row.c[k_g_c]),
        g_u(sample ? sample[k_sample_g_u] : row.c[k_g_u]),
        lo(sample ? sample[k_sample_lo] : row.c[k_lo]),
        hi(sample ? sample[k_sample_hi] : row.c[k_hi]),
        rho(sample ? sample[k_sample_rho] : row.c[k_rho]) {}
};

// Four elements on their way through the row.
struct Step {
  const SolverStepLaunch& args;
  const StepRow& row;
  const Place& at;
  bool wrong;
  Four x{}, m{}, m_u{}, cond{}, x0{}, next{};

  FASTDIFF_HD Step(const SolverStepLaunch& a, const StepRow& r, const Place& p)
      : args(a), row(r), at(p), wrong(r.valid == 0.0f) {}

  FASTDIFF_HD float c(int column) const { return row.c[column]; }

  // What push k writes.
  FASTDIFF_HD int kind(int k) const { return static_cast<int>(c(k_push_0 + 2 * k)); }

  // A source that the row needs; a missing one makes the result NaN.
  FASTDIFF_HD Four need(const Source& source, bool needed) {
    wrong = wrong || (needed && source.data == nullptr);
    return read(source, at, needed);
  }

  // Whether a slot exists; one that the row needs and that does not makes the result NaN.
  FASTDIFF_HD bool has_slot(float slot) {
    const bool exists = slot >= 0.0f && slot < static_cast<float>(args.slots);
    wrong = wrong || !exists;
    return exists;
  }

  FASTDIFF_HD float* slot_at(float slot) const {
    return args.history + static_cast<int64_t>(slot) * args.samples.batch * args.samples.count + at.dense;
  }

  FASTDIFF_HD Four noise(const Source& given, uint32_t stream) {
    if (given.data != nullptr) return read(given, at, true);
    wrong = wrong || args.seeds == nullptr;
    if (args.seeds == nullptr) return Four{};
    const NoiseKey key{static_cast<uint64_t>(args.seeds[at.sample]), static_cast<uint32_t>(c(k_noise_row)),
                       stream};
    return normals(key, static_cast<uint64_t>(at.begin) / 4);
  }

  FASTDIFF_HD void read_inputs(const Weights& w) {
    const bool network = c(k_u_m) != 0 || c(k_p_m) != 0 || c(k_q_m) != 0;
    m_u = need(args.m_u, (network && w.g_u != 0) || c(k_q_u) != 0 || c(k_p_u) != 0);
    cond = need(args.cond, c(k_u_c) != 0 || c(k_p_c) != 0 || c(k_d) != 0);
    add_term(m, w.g_c, need(args.m, network && w.g_c != 0));
    add_term(m, w.g_u, m_u);
    const bool pushed = kind(0) == k_push_x || kind(1) == k_push_x;
    if (c(k_b) != 0 || c(k_u_x) != 0 || c(k_p_x) != 0 || pushed) {
      add_term(x, w.gain, w.gain != 0 ? load_floats(args.x + at.dense, at.count) : Four{});
    }
  }

  FASTDIFF_HD void make_x0(const Weights& w) {
    add_term(x0, c(k_u_x), x);
    add_term(x0, c(k_u_m), m);
    add_term(x0, c(k_u_c), cond);
    for (float& value : x0.v) {
      value = value > w.hi ? w.hi : value;  // NaN stays NaN
      value = w.rho * (value < w.lo ? w.lo : value);
    }
  }

  FASTDIFF_HD void make_next() {
    add_term(next, c(k_b), x);
    add_term(next, c(k_a), x0);
    add_term(next, c(k_q_m), m);
    add_term(next, c(k_q_u), m_u);
    add_term(next, c(k_d), cond);
    for (int k = 0; k < kHistories; ++k) {
      if (c(k_h_0 + k) == 0.0f || !has_slot(c(k_slot_0 + k))) continue;
      add_term(next, c(k_h_0 + k), load_floats(slot_at(c(k_slot_0 + k)), at.count));
    }
  }

  FASTDIFF_HD void add_solver_noise() {
    if (c(k_s) == 0.0f) return;
    Four half_log{};
    add_term(half_log, 0.5f * c(k_l_1), need(args.v, c(k_l_1) != 0.0f));
    const Four made = noise(args.noise, static_cast<uint32_t>(c(k_stream)));
    for (int i = 0; i < 4; ++i) next.v[i] += c(k_s) * (expf(0.5f * c(k_l_0) + half_log.v[i]) * made.v[i]);
  }

  FASTDIFF_HD void blend_known() {
    if (args.mask.data == nullptr) return;
    Four region{};
    add_term(region, c(k_i_y), need(args.known, c(k_i_y) != 0.0f));
    if (c(k_i_s) != 0.0f) add_term(region, c(k_i_s), noise(args.known_noise, k_stream_known));
    const Four mask = read(args.mask, at, true);
    for (int i = 0; i < 4; ++i) {
      const float weight = mask.v[i], mixed = weight * region.v[i] + (1.0f - weight) * next.v[i];
      next.v[i] = weight == 1.0f ? region.v[i] : weight == 0.0f ? next.v[i] : mixed;
    }
  }

  FASTDIFF_HD Four epsilon() const {
    Four eps{};
    add_term(eps, c(k_p_x), x);
    add_term(eps, c(k_p_0), x0);
    add_term(eps, c(k_p_m), m);
    add_term(eps, c(k_p_u), m_u);
    add_term(eps, c(k_p_c), cond);
    return eps;
  }

  // After every read of the history: both pushes.
  FASTDIFF_HD void push() {
    bool slots[kPushes];
    for (int k = 0; k < kPushes; ++k) {
      slots[k] = kind(k) != k_push_none && has_slot(c(k_push_0_slot + 2 * k));
    }
    for (int k = 0; k < kPushes; ++k) {
      if (!slots[k] || wrong) continue;
      const int what = kind(k);
      const Four value = what == k_push_x ? x : what == k_push_x0 ? x0 : epsilon();
      store_floats(slot_at(c(k_push_0_slot + 2 * k)), value, at.count);
    }
  }

  FASTDIFF_HD void write() {
    const float nan = as_float(0x7FC00000u);
    if (wrong) {
      for (int i = 0; i < 4; ++i) x0.v[i] = next.v[i] = nan;
    }
    if (args.x0_out) store_floats(args.x0_out + at.dense, x0, at.count);
    store_floats(args.out + at.dense, next, at.count);
  }
};

// After the barrier.
FASTDIFF_HD void solver_step_thread(const SolverStepLaunch& args, const StepRow& row, int64_t block,
                                    int thread) {
  const Place at(block, thread, args.samples.count);
  if (at.count <= 0) return;
  const Weights weights(row, args.per_sample ? args.per_sample + at.sample * k_per_sample_width : nullptr);
  Step step(args, row, at);
  step.read_inputs(weights);
  step.make_x0(weights);
  step.make_next();
  step.add_solver_noise();
  step.blend_known();
  step.push();
  step.write();
}

#ifdef __CUDACC__
__global__ void __launch_bounds__(kThreads)
    solver_step_kernel(const __grid_constant__ SolverStepLaunch args) {
  __shared__ StepRow row;
  load_row(args, static_cast<int>(threadIdx.x), row);
  __syncthreads();
  solver_step_thread(args, row, blockIdx.x, static_cast<int>(threadIdx.x));
}
#endif

}  // namespace fastdiff::device
