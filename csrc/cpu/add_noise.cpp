// add_noise: x_t = alpha * x0 + sigma * noise with one alpha and sigma per sample, see
// fastdiff/ops/add_noise.py.
#include "entries.h"
#include "noise_tile.h"
#include "read_tile.h"

namespace fastdiff::FASTDIFF_ISA {

// Adds `offset` times one number per channel: element i of the offset stream is channel i.
static void add_offsets(const AddNoiseArgs& args, const Tile& tile, const NoiseKey& key, float* noise) {
  alignas(64) float shifts[kTile];
  int64_t first = -1;
  for (int i = 0; i < tile.count;) {
    const int64_t channel = (tile.begin + i) / args.channel, end = (channel + 1) * args.channel - tile.begin;
    if (first < 0 || channel >= first + kTile) {
      first = channel / kTile * kTile;
      normal_tile(key, first, kTile, shifts);
    }
    const float shift = args.offset * shifts[channel - first];
    for (; i < tile.count && i < end; ++i) noise[i] += shift;
  }
}

static void blend(float alpha, float sigma, const float* x0, const float* noise, int count, float* out) {
  for_vectors(count, [=](int i, auto access) {
    const Floats signal = alpha == 0.0f ? Floats{} : alpha * access.load_from(x0 + i);
    access.store_to(out + i, signal + sigma * access.load_from(noise + i));
  });
}

static void copy(const float* from, int count, float* to) {
  __builtin_memcpy(to, from, 4 * static_cast<unsigned>(count));
}

void add_noise(const AddNoiseArgs& args, int64_t begin, int64_t end) {
  alignas(64) float noise_buffer[kTile], x0_buffer[kTile];
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile(args.samples, index);
    const int64_t at = tile.sample * args.samples.count + tile.begin;
    const uint64_t seed = args.seeds ? static_cast<uint64_t>(args.seeds[tile.sample]) : 0;
    const uint32_t row = static_cast<uint32_t>(args.rows ? args.rows[tile.sample] : args.row);
    if (args.noise) {
      const float* given = read_tile(args.noise, tile, noise_buffer);
      if (given != noise_buffer) copy(given, tile.count, noise_buffer);
    } else {
      normal_tile({seed, row, k_stream_forward}, tile.begin, tile.count, noise_buffer);
    }
    if (args.offset != 0.0f) add_offsets(args, tile, {seed, row, k_stream_offset}, noise_buffer);
    const float* x0 = read_tile(args.x0, tile, x0_buffer);
    if (args.noise_out) copy(noise_buffer, tile.count, args.noise_out + at);
    blend(args.alpha[tile.sample], args.sigma[tile.sample], x0, noise_buffer, tile.count, args.out + at);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
