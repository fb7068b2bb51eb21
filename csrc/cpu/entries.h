// Entry points of one instruction set, defined in <op>.cpp.
#pragma once

#include "fastdiff/cpu_kernels.h"

#ifndef FASTDIFF_ISA
#error "compile with -DFASTDIFF_ISA=<name>"
#endif

namespace fastdiff::FASTDIFF_ISA {

#define FASTDIFF_FUNCTION(NAME, ARGUMENTS) void NAME ARGUMENTS;
FASTDIFF_CPU_KERNELS(FASTDIFF_FUNCTION)
#undef FASTDIFF_FUNCTION

}  // namespace fastdiff::FASTDIFF_ISA
