// How the CUDA group norm is cut: chosen on the host from the shape of one sample, its type, and what a
// block's shared memory holds. A result depends on neither the batch nor the number of multiprocessors.
#pragma once

#include <numeric>

#include "fastdiff/group_norm_silu.cuh"

namespace fastdiff::device {

struct GroupNormPlan {
  bool slab = false;
  int count = 1;       // elements of a packet: 16 bytes, or 1
  int64_t shared = 0;  // bytes of shared memory of a block
  int64_t slabs = 0;   // of a sample
};

inline int64_t rows_of_slab(const GroupNormLaunch& args, int count) {
  const FeatureMap& map = args.map;
  return map.channels_last ? map.pixels : args.slab_channels * map.pixels / count;
}

// Fills in slab_channels, ranks and parts. `limit`: bytes of shared memory that a block may have;
// `most_ranks`: blocks of a cluster at most, 1 before sm_90.
inline GroupNormPlan plan_group_norm(GroupNormLaunch& args, int threads, int64_t limit, int most_ranks) {
  const FeatureMap& map = args.map;
  const int64_t size = map.element == Element::f32 ? 4 : 2, per_group = map.channels / args.groups;
  GroupNormPlan plan;
  const bool even = (map.channels_last ? map.channels : map.pixels) % (16 / size) == 0 &&
                    aligned(args.x, 16) && aligned(args.out, 16);
  const int64_t sectors = std::lcm(32 / size, per_group);
  plan.count =
      even && (!map.channels_last || sectors * size / 16 <= threads) ? static_cast<int>(16 / size) : 1;
  const bool alone = !map.channels_last || plan.count == 1;
  args.slab_channels = static_cast<int>(alone ? per_group : sectors < map.channels ? sectors : map.channels);
  plan.slabs = (map.channels + args.slab_channels - 1) / args.slab_channels;
  const int64_t rows = rows_of_slab(args, plan.count);
  const int64_t row = size * (map.channels_last ? args.slab_channels : plan.count);
  const int64_t tables = 4 * (kNormTables + norm_scratch(threads, plan.count, map.channels_last));
  for (int ranks = 1; ranks <= most_ranks && !plan.slab; ranks *= 2) {
    args.ranks = ranks;
    plan.shared = tables + (rows + ranks - 1) / ranks * row;
    plan.slab = plan.shared <= limit;
  }
  if (plan.slab) return plan;
  args.ranks = 1;
  plan.shared = tables;
  // Near 64 KB of a slab for a block: of the partials a block reads less than one in a hundred of that.
  const int64_t parts = rows * row / (64 << 10);
  args.parts = parts < 1 ? 1 : parts > 512 ? 512 : parts;
  return plan;
}

}  // namespace fastdiff::device
