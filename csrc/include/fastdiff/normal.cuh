// normal: one thread writes four numbers; see fastdiff/ops/normal.py.
#pragma once

#include "fastdiff/four.cuh"

namespace fastdiff::device {

struct NormalLaunch {
  Samples samples;
  const int64_t* seeds = nullptr;
  const int64_t* rows = nullptr;  // null: `row` for all
  int64_t row = 0;
  uint32_t stream = 0;
  float* out = nullptr;
};

FASTDIFF_HD void normal_thread(const NormalLaunch& args, int64_t block, int thread) {
  const Place at(block, thread, args.samples.count);
  if (at.count <= 0) return;
  const NoiseKey key = key_of(args.seeds, args.rows, args.row, at.sample, args.stream);
  store_floats(args.out + at.dense, normals(key, static_cast<uint64_t>(at.begin) / 4), at.count);
}

#ifdef __CUDACC__
__global__ void __launch_bounds__(kThreads) normal_kernel(const __grid_constant__ NormalLaunch args) {
  normal_thread(args, blockIdx.x, static_cast<int>(threadIdx.x));
}
#endif

}  // namespace fastdiff::device
