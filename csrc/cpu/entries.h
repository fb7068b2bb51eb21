// Entry points of one instruction set, defined in <op>.cpp.
#pragma once

#include "fastdiff/cpu_kernels.h"

#ifndef FASTDIFF_ISA
#error "compile with -DFASTDIFF_ISA=<name>"
#endif

namespace fastdiff::FASTDIFF_ISA {

void normal(const NormalArgs&, int64_t begin, int64_t end);
void add_noise(const AddNoiseArgs&, int64_t begin, int64_t end);
void solver_step(const SolverStepArgs&, int64_t begin, int64_t end);
void group_norm_silu(const GroupNormArgs&, Phase, int64_t begin, int64_t end);
void group_norm_silu_backward(const GroupNormArgs&, Phase, int64_t begin, int64_t end);
void rms_norm_silu(const RmsNormArgs&, float* scratch, int64_t begin, int64_t end);
void rms_norm_silu_backward(const RmsNormArgs&, float* scratch, int64_t begin, int64_t end);

}  // namespace fastdiff::FASTDIFF_ISA
