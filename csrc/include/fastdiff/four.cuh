// How a thread reads and writes its four elements: 128 bits at once where they lie so, else one by one.
#pragma once

#include "fastdiff/noise.cuh"
#include "fastdiff/tile.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace fastdiff::device {

constexpr int kThreads = 256;  // of a block; a block covers one tile
static_assert(4 * kThreads == kTile, "a thread has four elements");

// Where a thread works: elements begin ... begin + count - 1 of one sample, 1 to 4 of them.
struct Place {
  int64_t sample;
  int64_t begin;
  int count;
  int64_t dense;  // of the first element, where samples of `size` elements lie one after another

  FASTDIFF_HD Place(int64_t block, int thread, int64_t size)
      : sample(block / ((size + kTile - 1) / kTile)),
        begin(block % ((size + kTile - 1) / kTile) * kTile + 4 * thread),
        count(size - begin < 4 ? static_cast<int>(size - begin) : 4),
        dense(sample * size + begin) {}
};

FASTDIFF_HD bool aligned(const void* p, int bytes) {
  return (reinterpret_cast<uintptr_t>(p) & static_cast<uintptr_t>(bytes - 1)) == 0;
}

FASTDIFF_HD Four load_floats(const float* p, int count) {
  if (count == 4 && aligned(p, 16)) return *reinterpret_cast<const Four*>(p);
  Four four{};
  for (int i = 0; i < 4; ++i) {  // counted to 4, so that the array stays in registers
    if (i < count) four.v[i] = p[i];
  }
  return four;
}

FASTDIFF_HD void store_floats(float* p, const Four& four, int count) {
  if (count == 4 && aligned(p, 16)) {
#ifdef __CUDA_ARCH__
    // An intrinsic, because the compiler would merge a plain store with the loop below, into four of 32 bits.
    __stwb(reinterpret_cast<float4*>(p), make_float4(four.v[0], four.v[1], four.v[2], four.v[3]));
#else
    *reinterpret_cast<Four*>(p) = four;
#endif
    return;
  }
  for (int i = 0; i < 4; ++i) {
    if (i < count) p[i] = four.v[i];
  }
}

FASTDIFF_HD float half_to_float(uint16_t bits) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(bits));
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, rest = bits & 0x7FFFu;
  if (rest >= 0x7C00u) return as_float(sign | 0x7F800000u | (rest & 0x3FFu) << 13);  // infinity or NaN
  const float value = as_float(rest << 13) * 0x1p112f;                               // subnormals too
  return as_float(as_bits(value) | sign);
#endif
}

FASTDIFF_HD float widen(uint16_t bits, Element element) {
  return element == Element::f16 ? half_to_float(bits) : as_float(static_cast<uint32_t>(bits) << 16);
}

FASTDIFF_HD float load_one(const Source& source, int64_t offset) {
  if (source.element == Element::f32) return static_cast<const float*>(source.data)[offset];
  return widen(static_cast<const uint16_t*>(source.data)[offset], source.element);
}

struct alignas(8) FourHalves {
  uint16_t v[4];
};

FASTDIFF_HD Four load_dense(const Source& source, int64_t offset, int count) {
  if (source.element == Element::f32)
    return load_floats(static_cast<const float*>(source.data) + offset, count);
  const uint16_t* p = static_cast<const uint16_t*>(source.data) + offset;
  FourHalves halves{};
  if (count == 4 && aligned(p, 8)) {
    halves = *reinterpret_cast<const FourHalves*>(p);
  } else {
    for (int i = 0; i < 4; ++i) {
      if (i < count) halves.v[i] = p[i];
    }
  }
  Four four;
  for (int i = 0; i < 4; ++i) four.v[i] = widen(halves.v[i], source.element);
  return four;
}

// The thread's elements as float32; 0 where the tensor is not wanted, which is not read then.
FASTDIFF_HD Four read(const Source& source, const Place& at, bool wanted) {
  Four four{};
  if (!wanted || source.data == nullptr) return four;
  const int64_t base = at.sample * source.sample_stride;
  if (source.dims == 1 && source.strides[0] == 1) return load_dense(source, base + at.begin, at.count);
  // Rare: small code, and no index into the array that would put it on the stack.
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
  for (int i = 0; i < at.count; ++i) {
    int64_t rest = at.begin + i, offset = base;
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
    for (int d = source.dims - 1; d >= 0; --d) {
      offset += rest % source.sizes[d] * source.strides[d];
      rest /= source.sizes[d];
    }
    const float value = load_one(source, offset);
    for (int k = 0; k < 4; ++k) four.v[k] = k == i ? value : four.v[k];
  }
  return four;
}

// coefficient * values, and 0 where the coefficient is 0, whatever the values are; added to the sum.
FASTDIFF_HD void add_term(Four& sum, float coefficient, const Four& values) {
  if (coefficient == 0.0f) return;
  for (int i = 0; i < 4; ++i) sum.v[i] += coefficient * values.v[i];
}

}  // namespace fastdiff::device
