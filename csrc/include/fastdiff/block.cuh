// What the threads of a block, and the blocks of a cluster, owe each other. Bodies take a Block; the tests
// have one of their own, which runs the same bodies on the host.
#pragma once

#include "fastdiff/noise.cuh"

#ifdef __CUDACC__
#include <cooperative_groups.h>
#endif

namespace fastdiff::device {

#ifdef __CUDACC__
struct Block {
  int thread, threads;
  int rank = 0, ranks = 1;  // of this block in its cluster (sm_90 and later)

  __device__ explicit Block(int cluster = 1)
      : thread(static_cast<int>(threadIdx.x)), threads(static_cast<int>(blockDim.x)), ranks(cluster) {
    if (cluster > 1) rank = static_cast<int>(blockIdx.x % static_cast<unsigned>(cluster));
  }
  __device__ void sync() const { __syncthreads(); }
  __device__ float shuffle_xor(float value, int mask) const {
    return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
  }
  // Every thread of every block of the cluster has arrived, and sees what they wrote to shared memory.
  __device__ void sync_cluster() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (ranks > 1) cooperative_groups::this_cluster().sync();
#endif
  }
  // The same place in another block's shared memory.
  __device__ const float* of_rank(const float* mine, int other) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (ranks > 1) return cooperative_groups::this_cluster().map_shared_rank(mine, other);
#endif
    return mine;
  }
};
#endif

// The sum over the lanes of a warp, in all of them.
template <class Block>
FASTDIFF_HD float warp_sum(const Block& block, float value) {
  for (int mask = 16; mask > 0; mask /= 2) value += block.shuffle_xor(value, mask);
  return value;
}

}  // namespace fastdiff::device
