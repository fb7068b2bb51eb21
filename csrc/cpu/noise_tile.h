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

// What the counters of one tile share. The second and third word of a counter are the same everywhere, the
// fourth changes only after 2**34 elements; so half of the first round and a quarter of the second are done
// once.
struct TileKeys {
  Longs k0[kRounds], k1[kRounds];
  Words last;                 // last round: both keys, taking turns
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
    last = join_low_halves(k0[kRounds - 1], k1[kRounds - 1]);
    const uint64_t product1 = static_cast<uint64_t>(key.stream) * kMultiplier1;
    const uint32_t c0 = static_cast<uint32_t>(product1 >> 32) ^ key.row ^ static_cast<uint32_t>(key.seed);
    const uint64_t product0 = static_cast<uint64_t>(c0) * kMultiplier0;
    first_k1 = broadcast_long((block >> 32) ^ (key.seed >> 32));
    second_0 = broadcast_long(static_cast<uint32_t>(product0 >> 32)) ^ k1[1];
    second_c1 = broadcast_long(static_cast<uint32_t>(product1)) ^ k0[1];
    second_c3 = broadcast_long(static_cast<uint32_t>(product0));
  }
};

// Vectors of counters worked on side by side: their chains of multiplications hide each other's latency. As
// many as the registers hold.
constexpr int kChains = kLanes == 16 ? 4 : 2;

// The four words of kChains times kLanes / 2 counters, in pairs: words 0 and 2 of a counter stand side by
// side, and words 1 and 3. Inside, one word stands in the low half of each 64-bit lane and what is above it
// does not matter. Of the two high words of a round one is taken by a shift and one by a shuffle, which
// different units do.
static inline __attribute__((always_inline)) void philox(Longs block, const TileKeys& keys,
                                                         Words (&even)[kChains], Words (&odd)[kChains]) {
  Longs c0[kChains], c1[kChains], c2[kChains], c3[kChains];
#pragma GCC unroll 4
  for (int i = 0; i < kChains; ++i) {
    const Longs first = multiply_low_halves(block + static_cast<uint64_t>(i * (kLanes / 2)), kMultiplier0);
    const Longs second = multiply_low_halves((first >> 32) ^ keys.first_k1, kMultiplier1);
    c0[i] = (second >> 32) ^ keys.second_c1;
    c1[i] = second;
    c2[i] = keys.second_0 ^ first;
    c3[i] = keys.second_c3;
  }
#pragma GCC unroll 8
  for (int round = 2; round < kRounds - 1; ++round) {
#pragma GCC unroll 4
    for (int i = 0; i < kChains; ++i) {
      const Longs p0 = multiply_low_halves(c0[i], kMultiplier0),
                  p1 = multiply_low_halves(c2[i], kMultiplier1);
      c0[i] = exclusive_or(shuffle_down(p1), c1[i], keys.k0[round]);
      c1[i] = p1;
      c2[i] = exclusive_or(p0 >> 32, c3[i], keys.k1[round]);
      c3[i] = p0;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kChains; ++i) {
    const Longs p0 = multiply_low_halves(c0[i], kMultiplier0), p1 = multiply_low_halves(c2[i], kMultiplier1);
    even[i] = (Words)exclusive_or((Longs)join_high_halves(p1, p0), (Longs)join_low_halves(c1[i], c3[i]),
                                  (Longs)keys.last);
    odd[i] = join_low_halves(p1, p0);
  }
}

// -2 ln u for u = ((word >> 9) + 1/2) * 2**-23, from u = (1 + f) * 2**exponent with f in [-1/2, 0). The
// polynomial is fitted to -2 ln(1 + f) = f q(f) so that the root of the result errs by less than 3.1e-7
// everywhere (least squares with Lawson's weights).
static inline Floats minus_two_log(Words word) {
#if FASTDIFF_LANES == 16
  const Floats u = (Floats)_mm512_cvtepu32_ps((__m512i)select_bits(word, ~0x1FFu, 0x100u));  // u * 2**32
  constexpr float scale = 31.0f;
#else
  const Floats u = to_floats((Ints)(word >> 9)) + 0.5f;  // u * 2**23
  constexpr float scale = 22.0f;
#endif
  Floats fraction, exponent;
  split_float(u, fraction, exponent);
  const Floats f = fraction - 1.0f;
  Floats q = -2.305518433f * f - 1.802399121f;
  q = q * f - 1.374197644f;
  q = q * f + 2.765958190e-01f;
  q = q * f - 6.921559684e-01f;
  q = q * f + 9.987397198e-01f;
  q = q * f - 2.000017852f;
  return (exponent - scale) * -1.3862943611f + f * q;
}

// Box-Muller: numbers 0 and 2 of each counter, and 1 and 3, as a sine and a cosine of 2 pi u, u as above,
// times a radius. With p the position in its half turn, from -1/2 to 1/2 and exact, they are -sin(pi p) and
// cos(pi p), and both are negated in the second half turn, which is the word's first bit. Polynomials as
// above, absolute error below 5e-8.
static inline void box_muller(Words even, Words odd, Floats& first, Floats& second) {
  const Floats radius = square_root(minus_two_log(even));
  const Floats turned = (Floats)((Words)radius ^ (odd & 0x80000000u));
  const Floats p = (Floats)select_bits(odd >> 8, 0x7FFFFEu, 0x3F800001u) - 1.5f, z = p * p;
  Floats s = -7.722011077e-02f * z + 5.980451650e-01f;
  s = s * z - 2.550031376f;
  s = s * z + 5.167706879f;
  s = s * z - 3.141592580f;
  Floats c = 2.196967953e-01f * z - 1.331880167f;
  c = c * z + 4.058411917f;
  c = c * z - 4.934792859f;
  c = c * z + 9.999999535e-01f;
  first = turned * p * s;
  second = turned * c;
}

constexpr int kStep = 2 * kChains;  // vectors of numbers that one call of philox makes

constexpr int kPiece = 512;  // elements that are made at a time where they are used at once

// Elements begin ... begin + count - 1 of one sample, with the keys of their tile; begin is a multiple of
// kPiece. The buffer has room for whole vectors up to a multiple of kStep. First all words, then all numbers:
// both loops are chains of dependent instructions, and short bodies let the processor work on several at
// once. `ahead(i, n)` is called for the elements i ... i + n - 1 while the units that compute are busy: to
// ask for memory.
template <class Ahead>
static inline __attribute__((always_inline)) void normal_piece(const TileKeys& keys, int64_t begin, int count,
                                                               float* buffer, const Ahead& ahead) {
  alignas(64) Words words[kTile / kLanes];
  // The two counters whose numbers share four lanes are a quarter of a vector apart, so that unpacking two
  // vectors puts all numbers in order.
  Longs block;
  for (int i = 0; i < kLanes / 2; ++i)
    block[i] = static_cast<uint64_t>(begin) / 4 + static_cast<uint64_t>(i / 2 + i % 2 * (kLanes / 4));
  for (int v = 0; v * kLanes < count; v += kStep) {
    Words even[kChains], odd[kChains];
    philox(block, keys, even, odd);
    block += static_cast<uint64_t>(kChains * kLanes / 2);
    for (int i = 0; i < kChains; ++i) {
      words[v + 2 * i] = even[i];
      words[v + 2 * i + 1] = odd[i];
    }
    ahead(v * kLanes, kStep * kLanes);
  }
  for (int v = 0; v * kLanes < count; v += 2) {
    Floats first, second;
    box_muller(words[v], words[v + 1], first, second);
    store(buffer + v * kLanes, unpack_low(first, second));
    store(buffer + (v + 1) * kLanes, unpack_high(first, second));
  }
}

// One tile; the buffer has room for kTile elements.
static void normal_tile(const NoiseKey& key, int64_t begin, int count, float* buffer) {
  normal_piece(TileKeys(key, static_cast<uint64_t>(begin) / 4), begin, count, buffer, [](int, int) {});
}

}  // namespace fastdiff::FASTDIFF_ISA
