// normal: standard normal numbers of (seed, row, stream), see fastdiff/ops/philox.py.
#include "entries.h"
#include "noise_tile.h"

namespace fastdiff::FASTDIFF_ISA {

void normal(const NormalArgs& args, int64_t begin, int64_t end) {
  alignas(64) float buffer[kTile];
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile(args.samples, index);
    const int64_t row = args.rows ? args.rows[tile.sample] : args.row;
    const NoiseKey key{static_cast<uint64_t>(args.seeds[tile.sample]), static_cast<uint32_t>(row),
                       args.stream};
    normal_tile(key, tile.begin, tile.count, buffer);
    __builtin_memcpy(args.out + tile.sample * args.samples.count + tile.begin, buffer,
                     4 * static_cast<unsigned>(tile.count));
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
