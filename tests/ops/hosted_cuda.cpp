// The bodies of the CUDA kernels as a library for the host; hosted_cuda.py loads it.
#include "block_shim.h"
#include "fastdiff/add_noise.cuh"
#include "fastdiff/normal.cuh"
#include "fastdiff/solver_step.cuh"

using namespace fastdiff;
using namespace fastdiff::device;

static int64_t blocks_of(const Samples& samples) {
  return samples.batch * ((samples.count + kTile - 1) / kTile);
}

extern "C" void normal(const NormalLaunch* args) {
  launch(blocks_of(args->samples), kThreads,
         [&](int64_t block, int thread) { normal_thread(*args, block, thread); });
}

extern "C" void add_noise(const AddNoiseLaunch* args) {
  launch(blocks_of(args->samples), kThreads,
         [&](int64_t block, int thread) { add_noise_thread(*args, block, thread); });
}

extern "C" void solver_step(const SolverStepLaunch* args) {
  launch_shared<StepRow>(
      blocks_of(args->samples), kThreads,
      [&](StepRow& row, int64_t, int thread) { load_row(*args, thread, row); },
      [&](StepRow& row, int64_t block, int thread) { solver_step_thread(*args, row, block, thread); });
}
