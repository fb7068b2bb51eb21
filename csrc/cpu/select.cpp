// Picks the instruction set once, by what the processor says.
#include <cstdlib>
#include <cstring>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {

#define FASTDIFF_FUNCTION(NAME, ARGUMENTS) void NAME ARGUMENTS;
#define FASTDIFF_NAME(NAME, ARGUMENTS) , NAME
#define FASTDIFF_DECLARE(ISA, LANES)                                             \
  namespace ISA {                                                                \
  FASTDIFF_CPU_KERNELS(FASTDIFF_FUNCTION)                                        \
  constexpr CpuKernels kernels{#ISA, LANES FASTDIFF_CPU_KERNELS(FASTDIFF_NAME)}; \
  }

FASTDIFF_DECLARE(baseline, 4)
#ifdef FASTDIFF_X86
FASTDIFF_DECLARE(avx2, 8)
FASTDIFF_DECLARE(avx512, 16)
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
