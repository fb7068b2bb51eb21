// add_noise: one thread noises four elements; see fastdiff/ops/add_noise.py.
#pragma once

#include "fastdiff/four.cuh"
#include "fastdiff/row.h"

namespace fastdiff::device {

struct AddNoiseLaunch {
  Samples samples;
  int64_t channel = 1;  // elements of one channel
  Source x0, noise;
  const float* alpha = nullptr;
  const float* sigma = nullptr;
  const int64_t* seeds = nullptr;
  const int64_t* rows = nullptr;  // null: `row` for all
  int64_t row = 0;
  float offset = 0.0f;
  float* out = nullptr;
  float* noise_out = nullptr;
};

// Adds offset * the number of each element's channel; four elements mostly share one channel.
FASTDIFF_HD void add_shifts(Four& eps, const AddNoiseLaunch& args, const Place& at) {
  const NoiseKey key = key_of(args.seeds, args.rows, args.row, at.sample, k_stream_offset);
  int64_t drawn = -1;
  Four shifts{};
  for (int i = 0; i < 4; ++i) {
    if (i >= at.count) break;
    const int64_t channel = (at.begin + i) / args.channel;
    if (channel / 4 != drawn) {
      drawn = channel / 4;
      shifts = normals(key, static_cast<uint64_t>(drawn));
    }
    const int word = static_cast<int>(channel % 4);
    const float low = word == 0 ? shifts.v[0] : shifts.v[1], high = word == 2 ? shifts.v[2] : shifts.v[3];
    eps.v[i] += args.offset * (word < 2 ? low : high);
  }
}

FASTDIFF_HD void add_noise_thread(const AddNoiseLaunch& args, int64_t block, int thread) {
  const Place at(block, thread, args.samples.count);
  if (at.count <= 0) return;
  const float alpha = args.alpha[at.sample], sigma = args.sigma[at.sample];
  Four eps = read(args.noise, at, true);
  if (args.noise.data == nullptr) {
    const NoiseKey key = key_of(args.seeds, args.rows, args.row, at.sample, k_stream_forward);
    eps = normals(key, static_cast<uint64_t>(at.begin) / 4);
  }
  if (args.offset != 0.0f) add_shifts(eps, args, at);
  Four value{};
  add_term(value, alpha, read(args.x0, at, alpha != 0.0f));
  for (int i = 0; i < 4; ++i) value.v[i] += sigma * eps.v[i];
  if (args.noise_out) store_floats(args.noise_out + at.dense, eps, at.count);
  store_floats(args.out + at.dense, value, at.count);
}

#ifdef __CUDACC__
__global__ void __launch_bounds__(kThreads) add_noise_kernel(const __grid_constant__ AddNoiseLaunch args) {
  add_noise_thread(args, blockIdx.x, static_cast<int>(threadIdx.x));
}
#endif

}  // namespace fastdiff::device
