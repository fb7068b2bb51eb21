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

// Words of as many counters as there are 64-bit lanes, one word in the low half of each lane.
struct Counters {
  Longs c0, c1, c2, c3;
};

static inline void philox_round(Counters& c, Longs k0, Longs k1) {
  const Longs p0 = multiply_low_halves(c.c0, 0xD2511F53u), p1 = multiply_low_halves(c.c2, 0xCD9E8D57u);
  c = {exclusive_or(p1 >> 32, c.c1, k0), p1, exclusive_or(p0 >> 32, c.c3, k1), p0};
}

constexpr int kRounds = 10;

// The keys of all rounds, in every lane.
struct RoundKeys {
  Longs k0[kRounds], k1[kRounds];

  explicit RoundKeys(uint64_t seed) {
    uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      k0[round] = broadcast_long(low);
      k1[round] = broadcast_long(high);
      low += 0x9E3779B9u;
      high += 0xBB67AE85u;
    }
  }
};

// The even and the odd counters side by side: two chains of multiplications hide each other's latency.
static inline void philox(Counters& even, Counters& odd, const RoundKeys& keys) {
#pragma GCC unroll 10
  for (int round = 0; round < kRounds; ++round) {
    philox_round(even, keys.k0[round], keys.k1[round]);
    philox_round(odd, keys.k0[round], keys.k1[round]);
  }
}

// -2 ln u for u = ((word >> 9) + 1/2) * 2**-23. The polynomial is fitted to -2 ln(1 + f) = -2 f + f*f*q(f) on
// [sqrt(1/2) - 1, sqrt(2) - 1) by weighted least squares (Lawson); relative error below 4e-8.
static inline Floats minus_two_log(Words word) {
  const Ints offset = as_ints(broadcast(0.70710678f));
  const Ints bits = as_ints(to_floats((Ints)(word >> 9)) + 0.5f);
  const Floats exponent = to_floats((bits - (offset + (23 << 23))) >> 23);
  const Floats f = as_floats(((bits - offset) & 0x7FFFFF) + offset) - 1.0f;
  Floats q = -1.746967266e-01f * f + 2.861503794e-01f;
  q = q * f - 2.983594945e-01f;
  q = q * f + 3.314101718e-01f;
  q = q * f - 3.992414414e-01f;
  q = q * f + 5.000351047e-01f;
  q = q * f - 6.666790045e-01f;
  q = q * f + 9.999998321e-01f;
  return exponent * -1.3862943611f + (f * f * q - 2.0f * f);
}

// cos and sin of 2 pi u, u as above. The nearest quarter turn and the rest are exact in integers; polynomials as above,
// absolute error below 4e-8.
static inline void cos_sin(Words word, Floats& cos, Floats& sin) {
  const Ints turned = (Ints)(word >> 9) + (1 << 20);  // in 2**-23 turns, plus an eighth of a turn
  const Floats r = to_floats(turned & 0x1FFFFF) * 0x1p-21f + (0x1p-22f - 0.5f), z = r * r;
  Floats s = -4.602176996e-03f * z + 7.968022807e-02f;
  s = s * z - 6.459634786e-01f;
  s = (s * z + 1.570796322e+00f) * r;
  Floats c = -2.042625017e-02f * z + 2.536063619e-01f;
  c = c * z - 1.233697954e+00f;
  c = c * z + 1.0f;
  const Ints odd = (turned & (1 << 21)) != 0, sign = as_ints(broadcast(-0.0f));
  cos = as_floats(as_ints(odd ? s : c) ^ (((turned + (1 << 21)) << 9) & sign));
  sin = as_floats(as_ints(odd ? c : s) ^ ((turned << 9) & sign));
}

static inline void box_muller(Words w0, Words w1, Floats& first, Floats& second) {
  const Floats radius = square_root(minus_two_log(w0));
  Floats cos, sin;
  cos_sin(w1, cos, sin);
  first = radius * cos;
  second = radius * sin;
}

// Elements begin ... begin + count - 1 of one sample; begin is a multiple of 4. The buffer has room for kTile
// elements and is written in whole vectors.
static void normal_tile(const NoiseKey& key, int64_t begin, int count, float* buffer) {
  Longs lanes;
  for (int i = 0; i < kLanes / 2; ++i) lanes[i] = static_cast<uint64_t>(2 * i);
  const Longs row = broadcast_long(key.row), stream = broadcast_long(key.stream);
  const RoundKeys keys(key.seed);
  for (int i = 0; i < count; i += 4 * kLanes) {
    const Longs block = lanes + static_cast<uint64_t>(begin + i) / 4;
    Counters even{block, row, stream, block >> 32}, odd{block + 1, row, stream, (block + 1) >> 32};
    philox(even, odd, keys);
    Floats a, b, c, d;
    box_muller(zip_low_halves(even.c0, odd.c0), zip_low_halves(even.c1, odd.c1), a, b);
    box_muller(zip_low_halves(even.c2, odd.c2), zip_low_halves(even.c3, odd.c3), c, d);
    const Floats ac_low = interleave_low(a, c), ac_high = interleave_high(a, c);
    const Floats bd_low = interleave_low(b, d), bd_high = interleave_high(b, d);
    store(buffer + i, interleave_low(ac_low, bd_low));
    store(buffer + i + kLanes, interleave_high(ac_low, bd_low));
    store(buffer + i + 2 * kLanes, interleave_low(ac_high, bd_high));
    store(buffer + i + 3 * kLanes, interleave_high(ac_high, bd_high));
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
