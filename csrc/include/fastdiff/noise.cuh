// Philox4x32-10 and Box-Muller for one counter, four numbers; see fastdiff/ops/philox.py. Host and device.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "fastdiff/host_device.h"

namespace fastdiff {

// Four consecutive elements, one 128-bit access.
struct alignas(16) Four {
  float v[4];
};

namespace device {

struct NoiseKey {
  uint64_t seed;
  uint32_t row;
  uint32_t stream;
};

// The key of one sample; rows may be null, then `row` is that of all.
FASTDIFF_HD NoiseKey key_of(const int64_t* seeds, const int64_t* rows, int64_t row, int64_t sample,
                            uint32_t stream) {
  return {static_cast<uint64_t>(seeds[sample]), static_cast<uint32_t>(rows ? rows[sample] : row), stream};
}

FASTDIFF_HD float as_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FASTDIFF_HD uint32_t as_bits(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

// -2 ln u for u = ((word >> 9) + 1/2) * 2**-23; the polynomials are those of csrc/cpu/noise_tile.h.
FASTDIFF_HD float minus_two_log(uint32_t word) {
  constexpr int32_t root = 0x3F3504F3;  // sqrt(1/2)
  const int32_t bits = static_cast<int32_t>(as_bits(static_cast<float>(word >> 9) + 0.5f));
  const float exponent = static_cast<float>((bits - (root + (23 << 23))) >> 23);
  const float f = as_float(static_cast<uint32_t>(((bits - root) & 0x7FFFFF) + root)) - 1.0f;
  float q = -1.746967266e-01f * f + 2.861503794e-01f;
  q = q * f - 2.983594945e-01f;
  q = q * f + 3.314101718e-01f;
  q = q * f - 3.992414414e-01f;
  q = q * f + 5.000351047e-01f;
  q = q * f - 6.666790045e-01f;
  q = q * f + 9.999998321e-01f;
  return exponent * -1.3862943611f + (f * f * q - 2.0f * f);
}

// cos and sin of 2 pi u, u as above; the reduction to an eighth of a turn is exact in integers.
FASTDIFF_HD void cos_sin(uint32_t word, float& cos, float& sin) {
  const uint32_t turned = (word >> 9) + (1u << 20);  // in 2**-23 turns, plus an eighth of a turn
  const float r = static_cast<float>(turned & 0x1FFFFF) * 0x1p-21f + (0x1p-22f - 0.5f), z = r * r;
  float s = -4.602176996e-03f * z + 7.968022807e-02f;
  s = s * z - 6.459634786e-01f;
  s = (s * z + 1.570796322e+00f) * r;
  float c = -2.042625017e-02f * z + 2.536063619e-01f;
  c = c * z - 1.233697954e+00f;
  c = c * z + 1.0f;
  const bool odd = (turned & (1u << 21)) != 0;
  cos = as_float(as_bits(odd ? s : c) ^ (((turned + (1u << 21)) << 9) & 0x80000000u));
  sin = as_float(as_bits(odd ? c : s) ^ ((turned << 9) & 0x80000000u));
}

FASTDIFF_HD void box_muller(uint32_t first, uint32_t second, float& a, float& b) {
  const float radius = sqrtf(minus_two_log(first));
  float cos, sin;
  cos_sin(second, cos, sin);
  a = radius * cos;
  b = radius * sin;
}

// Elements 4 * block ... 4 * block + 3 of one sample.
FASTDIFF_HD Four normals(const NoiseKey& key, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = key.row, c2 = key.stream;
  uint32_t c3 = static_cast<uint32_t>(block >> 32);
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u, p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  Four noise;
  box_muller(c0, c1, noise.v[0], noise.v[1]);
  box_muller(c2, c3, noise.v[2], noise.v[3]);
  return noise;
}

}  // namespace device
}  // namespace fastdiff
