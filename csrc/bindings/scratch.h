// Memory and equal shares of work.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastdiff {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Channels of a convolution, so few that sizes of its weights fit 64 bits.
inline void check_channels(int64_t outs, int64_t channels, const char* op) {
  const int64_t most = int64_t{1} << 24;
  STD_TORCH_CHECK(outs >= 0 && outs < most && channels >= 0 && channels < most, op,
                  ": channels must be in [0, 2**24), got ", outs, " and ", channels);
}

// Asks for large pages where memory that nobody has written yet spans whole ones: looking up the addresses of
// small pages is a good part of the time of reading weights once.
constexpr uintptr_t kLargePage = uintptr_t{1} << 21;
inline void prefer_large_pages(void* data, int64_t floats) {
#ifdef MADV_HUGEPAGE
  const uintptr_t first = reinterpret_cast<uintptr_t>(data), end = first + 4 * static_cast<uintptr_t>(floats);
  const uintptr_t begin = (first + kLargePage - 1) / kLargePage * kLargePage;
  const uintptr_t last = end / kLargePage * kLargePage;
  if (begin < last) (void)madvise(reinterpret_cast<void*>(begin), last - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)floats;
#endif
}

// Scratch memory of this thread, kept between calls; whole large pages, save where a sanitizer looks for
// accesses beside it.
inline float* scratch_of(int64_t floats) {
  constexpr std::align_val_t alignment{kLargePage};
  struct Buffer {
    float* data = nullptr;
    int64_t size = 0;
    ~Buffer() { ::operator delete(data, alignment); }
  };
  static thread_local Buffer buffer;
  if (buffer.size < floats) {
    ::operator delete(buffer.data, alignment);
    buffer.data = nullptr;
    buffer.size = 0;
#ifndef __SANITIZE_ADDRESS__
    constexpr int64_t page = kLargePage / 4;
    floats = ceil_div(floats, page) * page;
#endif
    buffer.data = static_cast<float*>(::operator new(4 * static_cast<size_t>(floats), alignment));
    buffer.size = floats;
    prefer_large_pages(buffer.data, floats);
  }
  return buffer.data;
}

// Memory of one call that begins with a line of the cache: a vector across two lines is two reads.
constexpr std::align_val_t kLine{64};
struct DeleteFloats {
  void operator()(float* data) const { ::operator delete(data, kLine); }
};
inline std::unique_ptr<float[], DeleteFloats> line_floats(int64_t floats) {
  return std::unique_ptr<float[], DeleteFloats>(
      static_cast<float*>(::operator new(4 * static_cast<size_t>(floats), kLine)));
}

// Runs f(slot, begin, end) for equal parts of 0 ... count - 1, one per slot.
template <class F>
void in_slots(int64_t slots, int64_t count, const F& f) {
  torch::stable::parallel_for(0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) f(slot, count * slot / slots, count * (slot + 1) / slots);
  });
}

}  // namespace fastdiff
