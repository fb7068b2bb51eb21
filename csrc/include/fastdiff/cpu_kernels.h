// The CPU kernels: plain arguments, one entry per op, one table of entries per instruction set.
#pragma once

#include <cstdint>

#include "fastdiff/attention.h"
#include "fastdiff/conv1x1.h"
#include "fastdiff/conv3x3.h"
#include "fastdiff/norms.h"
#include "fastdiff/row.h"
#include "fastdiff/rows.h"
#include "fastdiff/statistics.h"
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

// index[n] = argmin_k |z_n - e_k|^2
struct VqNearestArgs {
  Rows z, codes;
  int64_t chunk = 0;  // codes that are packed at a time, a multiple of kVqCodes
  int64_t* index = nullptr;
  float* distance = nullptr;
  void* quantised = nullptr;  // rows of the codes' element type
};
constexpr int64_t kVqCodes = 32;
// Floats of scratch memory, 64-byte aligned, that one thread needs.
constexpr int64_t vq_scratch(int64_t chunk, int64_t width) {
  return chunk * (width + 1) + 17 * width + 48;
}

// sums[k] = sum of the rows order[starts[k] .. starts[k + 1]) of z
struct VqCodeSumsArgs {
  Rows z;
  const int64_t* starts = nullptr;
  const int64_t* order = nullptr;
  float* sums = nullptr;
};

// Every kernel, with its arguments; the last two are the range of tiles or rows to work on. The one list of
// them.
#define FASTDIFF_CPU_KERNELS(ENTRY)                                                               \
  ENTRY(normal, (const NormalArgs&, int64_t, int64_t))                                            \
  ENTRY(add_noise, (const AddNoiseArgs&, int64_t, int64_t))                                       \
  ENTRY(solver_step, (const SolverStepArgs&, int64_t, int64_t))                                   \
  ENTRY(group_norm_silu, (const GroupNormArgs&, Phase, int64_t, int64_t))                         \
  ENTRY(group_norm_silu_backward, (const GroupNormArgs&, Phase, int64_t, int64_t))                \
  ENTRY(rms_norm_silu, (const RmsNormArgs&, float* scratch, int64_t, int64_t))                    \
  ENTRY(rms_norm_silu_backward, (const RmsNormArgs&, float* scratch, int64_t, int64_t))           \
  ENTRY(vq_nearest, (const VqNearestArgs&, float* scratch, int64_t, int64_t))                     \
  ENTRY(vq_code_sums, (const VqCodeSumsArgs&, int64_t, int64_t))                                  \
  ENTRY(attention, (const AttentionArgs&, float* scratch, int64_t, int64_t))                      \
  ENTRY(linear_attention_context, (const LinearAttentionArgs&, float* scratch, int64_t, int64_t)) \
  ENTRY(linear_attention, (const LinearAttentionArgs&, float* scratch, int64_t, int64_t))         \
  ENTRY(conv3x3, (const Conv3x3Args&, Conv3x3Phase, float* scratch, int64_t, int64_t))            \
  ENTRY(conv3x3_pack, (const Conv3x3PackArgs&, int64_t, int64_t))                                 \
  ENTRY(conv1x1, (const Conv1x1Args&, float* scratch, int64_t, int64_t))                          \
  ENTRY(conv1x1_pack, (const Conv1x1PackArgs&, int64_t, int64_t))                                 \
  ENTRY(channel_statistics, (const ChannelStatisticsArgs&, int64_t, int64_t))                     \
  ENTRY(pixel_norms, (const PixelNormsArgs&, int64_t, int64_t))                                   \
  ENTRY(norm_factors, (const NormFactorsArgs&, int64_t, int64_t))

#define FASTDIFF_POINTER(NAME, ARGUMENTS) void(*NAME) ARGUMENTS;
struct CpuKernels {
  const char* name;
  int64_t lanes;  // floats of a vector
  FASTDIFF_CPU_KERNELS(FASTDIFF_POINTER)
};
#undef FASTDIFF_POINTER

// The best set that this processor runs, or the one that FASTDIFF_CPU names (avx512, avx2, baseline).
const CpuKernels& cpu_kernels();

}  // namespace fastdiff
