// Picks the instruction set once, by what the processor says.
#include <cstdlib>
#include <cstring>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {

#define FASTDIFF_DECLARE(ISA)                                                        \
  namespace ISA {                                                                    \
  void normal(const NormalArgs&, int64_t, int64_t);                                  \
  void add_noise(const AddNoiseArgs&, int64_t, int64_t);                             \
  void solver_step(const SolverStepArgs&, int64_t, int64_t);                         \
  void group_norm_silu(const GroupNormArgs&, Phase, int64_t, int64_t);               \
  void group_norm_silu_backward(const GroupNormArgs&, Phase, int64_t, int64_t);      \
  void rms_norm_silu(const RmsNormArgs&, float* scratch, int64_t, int64_t);          \
  void rms_norm_silu_backward(const RmsNormArgs&, float* scratch, int64_t, int64_t); \
  constexpr CpuKernels kernels{#ISA,                                                 \
                               normal,                                               \
                               add_noise,                                            \
                               solver_step,                                          \
                               group_norm_silu,                                      \
                               group_norm_silu_backward,                             \
                               rms_norm_silu,                                        \
                               rms_norm_silu_backward};                              \
  }

FASTDIFF_DECLARE(baseline)
#ifdef FASTDIFF_X86
FASTDIFF_DECLARE(avx2)
FASTDIFF_DECLARE(avx512)
#endif

static const CpuKernels* choose() {
  const char* wanted = std::getenv("FASTDIFF_CPU");
  const auto allowed = [wanted](const char* name) {
    return !wanted || !*wanted || std::strcmp(wanted, name) == 0;
  };
#ifdef FASTDIFF_X86
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allowed("avx512")) return &avx512::kernels;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && allowed("avx2"))
    return &avx2::kernels;
#endif
  (void)allowed;
  return &baseline::kernels;
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels* const chosen = choose();
  return *chosen;
}

}  // namespace fastdiff
