// Philox4x32-10 and Box-Muller, as many counters at once as there are lanes; see fastdiff/ops/philox.py.
#pragma once

#include <cstdint>

#include "fastdiff/tile.h"
#include "simd.h"

namespace fastdiff::FASTDIFF_ISA {

struct NoiseKey {
  uint64_t seed;
  uint32_t row;
  uint32_t stream;
};

static inline void philox(Words& c0, Words& c1, Words& c2, Words& c3, uint64_t seed) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply(c0, 0xD2511F53u, high0, low0);
    multiply(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

static inline Floats unit(Words w) { return (to_floats((Ints)(w >> 9)) + 0.5f) * 1.1920928955078125e-7f; }

static inline void box_muller(Words w0, Words w1, Floats& first, Floats& second) {
  const Floats radius = square_root(-2.0f * natural_log(unit(w0)));
  Floats cos, sin;
  cos_sin_turns(unit(w1), cos, sin);
  first = radius * cos;
  second = radius * sin;
}

// Elements begin ... begin + count - 1 of one sample; begin is a multiple of 4. The buffer has room for kTile
// elements and is written in whole vectors.
static void normal_tile(const NoiseKey& key, int64_t begin, int count, float* buffer) {
  Words lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<uint32_t>(i);
  for (int i = 0; i < count; i += 4 * kLanes) {
    const uint64_t block = static_cast<uint64_t>(begin + i) / 4;
    Words c0 = lanes + static_cast<uint32_t>(block);
    Words c1 = broadcast_word(key.row), c2 = broadcast_word(key.stream);
    // A block is a multiple of the lanes, so its low word does not wrap inside a vector.
    Words c3 = broadcast_word(static_cast<uint32_t>(block >> 32));
    philox(c0, c1, c2, c3, key.seed);
    Floats a, b, c, d;
    box_muller(c0, c1, a, b);
    box_muller(c2, c3, c, d);
    const Floats ac_low = interleave_low(a, c), ac_high = interleave_high(a, c);
    const Floats bd_low = interleave_low(b, d), bd_high = interleave_high(b, d);
    store(buffer + i, interleave_low(ac_low, bd_low));
    store(buffer + i + kLanes, interleave_high(ac_low, bd_low));
    store(buffer + i + 2 * kLanes, interleave_low(ac_high, bd_high));
    store(buffer + i + 3 * kLanes, interleave_high(ac_high, bd_high));
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
