// Scratch memory and equal shares of the work of a convolution.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <new>

namespace fastdiff {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Scratch memory of this thread, kept between calls.
inline float* scratch_of(int64_t floats) {
  struct Buffer {
    float* data = nullptr;
    int64_t size = 0;
    ~Buffer() { ::operator delete(data, std::align_val_t{64}); }
  };
  static thread_local Buffer buffer;
  if (buffer.size < floats) {
    ::operator delete(buffer.data, std::align_val_t{64});
    buffer.data = nullptr;
    buffer.size = 0;
    buffer.data = static_cast<float*>(::operator new(4 * static_cast<size_t>(floats), std::align_val_t{64}));
    buffer.size = floats;
  }
  return buffer.data;
}

// Runs f(slot, begin, end) for equal parts of 0 ... count - 1, one per slot.
template <class F>
void in_slots(int64_t slots, int64_t count, const F& f) {
  torch::stable::parallel_for(0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) f(slot, count * slot / slots, count * (slot + 1) / slots);
  });
}

}  // namespace fastdiff
