// Runs the bodies of the CUDA kernels on the host: blocks one after another, the threads of a block in turn,
// and a barrier as the end of one loop over the threads and the start of the next.
#pragma once

#include <cstdint>
#include <cstring>

template <class Body>
void launch(int64_t blocks, int threads, const Body& body) {
  for (int64_t block = 0; block < blocks; ++block) {
    for (int thread = 0; thread < threads; ++thread) body(block, thread);
  }
}

// With shared memory, which holds NaN until somebody writes it; `before` and `after` stand around a barrier.
template <class Shared, class Before, class After>
void launch_shared(int64_t blocks, int threads, const Before& before, const After& after) {
  for (int64_t block = 0; block < blocks; ++block) {
    Shared shared;
    std::memset(static_cast<void*>(&shared), 0xFF, sizeof shared);
    for (int thread = 0; thread < threads; ++thread) before(shared, block, thread);
    for (int thread = threads - 1; thread >= 0; --thread) after(shared, block, thread);
  }
}
