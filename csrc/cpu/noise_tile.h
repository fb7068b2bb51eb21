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

constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;

// Words of as many counters as there are 64-bit lanes, one word in the low half of each lane.
struct Counters {
  Longs c0, c1, c2, c3;
};

// What the counters of one tile share. The second and third word of a counter are the same everywhere, the
// fourth changes only after 2**34 elements; so half of the first round and a quarter of the second are done
// once.
struct TileKeys {
  Longs k0[kRounds], k1[kRounds];
  Longs first_k1;             // round 1: fourth word and key
  Longs second_0, second_c1;  // round 2: high word of the first product and key; second word
  Longs second_c3;            // round 2: low word of the first product

  TileKeys(const NoiseKey& key, uint64_t block) {
    uint32_t low = static_cast<uint32_t>(key.seed), high = static_cast<uint32_t>(key.seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      k0[round] = broadcast_long(low);
      k1[round] = broadcast_long(high);
      low += 0x9E3779B9u;
      high += 0xBB67AE85u;
    }
    const uint64_t product1 = static_cast<uint64_t>(key.stream) * kMultiplier1;
    const uint32_t c0 = static_cast<uint32_t>(product1 >> 32) ^ key.row ^ static_cast<uint32_t>(key.seed);
    const uint64_t product0 = static_cast<uint64_t>(c0) * kMultiplier0;
    first_k1 = broadcast_long((block >> 32) ^ (key.seed >> 32));
    second_0 = broadcast_long(static_cast<uint32_t>(product0 >> 32)) ^ k1[1];
    second_c1 = broadcast_long(static_cast<uint32_t>(product1)) ^ k0[1];
    second_c3 = broadcast_long(static_cast<uint32_t>(product0));
  }
};

// Counters worked on side by side: their chains of multiplications hide each other's latency. As many as the
// registers hold.
constexpr int kChains = kLanes == 16 ? 4 : 2;

static inline void philox(Counters (&c)[kChains], Longs block, const TileKeys& keys) {
#pragma GCC unroll 4
  for (int i = 0; i < kChains;
       ++i) {  // chain 0: even counters, chain 1: odd, chain 2: even ones of the next vector, ...
    const Longs first =
        multiply_low_halves(block + static_cast<uint64_t>(i / 2 * kLanes + i % 2), kMultiplier0);
    const Longs second = multiply_low_halves((first >> 32) ^ keys.first_k1, kMultiplier1);
    c[i] = {(second >> 32) ^ keys.second_c1, second, keys.second_0 ^ first, keys.second_c3};
  }
#pragma GCC unroll 8
  for (int round = 2; round < kRounds; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) {
      const Longs p0 = multiply_low_halves(c[i].c0, kMultiplier0),
                  p1 = multiply_low_halves(c[i].c2, kMultiplier1);
      c[i] = {exclusive_or(p1 >> 32, c[i].c1, keys.k0[round]), p1,
              exclusive_or(p0 >> 32, c[i].c3, keys.k1[round]), p0};
    }
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

// cos and sin of 2 pi u, u as above. The nearest quarter turn and the rest are exact in integers; polynomials
// as above, absolute error below 4e-8.
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

// Elements begin ... begin + count - 1 of one sample; begin is a multiple of kTile. The buffer has room for
// kTile elements and is written in whole vectors. First all words, then all numbers: both loops are chains of
// dependent instructions, and short bodies let the processor work on several at once.
static void normal_tile(const NoiseKey& key, int64_t begin, int count, float* buffer) {
  alignas(64) Words words[kTile / kLanes];
  Longs lanes;
  for (int i = 0; i < kLanes / 2; ++i) lanes[i] = static_cast<uint64_t>(2 * i);
  const TileKeys keys(key, static_cast<uint64_t>(begin) / 4);
  constexpr int kStep = kChains / 2;  // vectors of each word that one call makes
  const int vectors = (count + 4 * kLanes - 1) / (4 * kLanes) * 4;
  for (int v = 0; v < vectors; v += 4 * kStep) {
    Counters c[kChains];
    philox(c, lanes + (static_cast<uint64_t>(begin) / 4 + static_cast<uint64_t>(v / 4 * kLanes)), keys);
    for (int k = 0; k < kStep; ++k) {
      const Counters &even = c[2 * k], &odd = c[2 * k + 1];
      words[v + 4 * k] = zip_low_halves(even.c0, odd.c0);
      words[v + 4 * k + 1] = zip_low_halves(even.c1, odd.c1);
      words[v + 4 * k + 2] = zip_low_halves(even.c2, odd.c2);
      words[v + 4 * k + 3] = zip_low_halves(even.c3, odd.c3);
    }
  }
  for (int v = 0; v < vectors; v += 4) {
    Floats a, b, c, d;
    box_muller(words[v], words[v + 1], a, b);
    box_muller(words[v + 2], words[v + 3], c, d);
    const Floats ac_low = interleave_low(a, c), ac_high = interleave_high(a, c);
    const Floats bd_low = interleave_low(b, d), bd_high = interleave_high(b, d);
    store(buffer + v * kLanes, interleave_low(ac_low, bd_low));
    store(buffer + (v + 1) * kLanes, interleave_high(ac_low, bd_low));
    store(buffer + (v + 2) * kLanes, interleave_low(ac_high, bd_high));
    store(buffer + (v + 3) * kLanes, interleave_high(ac_high, bd_high));
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
