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
void vq_nearest(const VqNearestArgs&, float* scratch, int64_t begin, int64_t end);
void vq_code_sums(const VqCodeSumsArgs&, int64_t begin, int64_t end);

}  // namespace fastdiff::FASTDIFF_ISA
