// The CPU kernels: plain arguments, one entry per op, one table of entries per instruction set.
#pragma once

#include <cstdint>

#include "fastdiff/norms.h"
#include "fastdiff/row.h"
#include "fastdiff/tile.h"

namespace fastdiff {

struct NormalArgs {
  Samples samples;
  const int64_t* seeds = nullptr;
  const int64_t* rows = nullptr;  // one per sample, or null: `row` for all
  int64_t row = 0;
  uint32_t stream = 0;
  float* out = nullptr;
};

// x_t = alpha * x0 + sigma * (noise + offset * offset_noise)
struct AddNoiseArgs {
  Samples samples;
  int64_t channel = 1;  // elements of one channel, which share an offset
  Source x0, noise;
  const float* alpha = nullptr;
  const float* sigma = nullptr;
  const int64_t* seeds = nullptr;
  const int64_t* rows = nullptr;
  int64_t row = 0;
  float offset = 0.0f;
  float* out = nullptr;
  float* noise_out = nullptr;
};

struct SolverStepArgs {
  Samples samples;
  const float* row = nullptr;
  const float* per_sample = nullptr;
  const int64_t* seeds = nullptr;
  Source m, m_u, v, cond, known, mask, noise, known_noise;
  const float* x = nullptr;
  float* history = nullptr;
  float* x0_out = nullptr;
  float* out = nullptr;
};

struct CpuKernels {
  const char* name;
  void (*normal)(const NormalArgs&, int64_t begin, int64_t end);
  void (*add_noise)(const AddNoiseArgs&, int64_t begin, int64_t end);
  void (*solver_step)(const SolverStepArgs&, int64_t begin, int64_t end);
  void (*group_norm_silu)(const GroupNormArgs&, Phase, int64_t begin, int64_t end);
  void (*group_norm_silu_backward)(const GroupNormArgs&, Phase, int64_t begin, int64_t end);
  void (*rms_norm_silu)(const RmsNormArgs&, float* scratch, int64_t begin, int64_t end);
  void (*rms_norm_silu_backward)(const RmsNormArgs&, float* scratch, int64_t begin, int64_t end);
};

// The best set that this processor runs, or the one that FASTDIFF_CPU names (avx512, avx2, baseline).
const CpuKernels& cpu_kernels();

}  // namespace fastdiff
