// group_norm_silu, forward; see fastdiff/ops/group_norm_silu.py. A slab is the whole groups that share
// 32-byte sectors: all pixels of some channels (channels last) or one group (channels first, where it is one
// stretch). Where it fits into shared memory it is read once and written once, by one block or by a cluster
// of blocks that hold a stretch of its rows each; else blocks measure parts of it and a second launch joins
// them and applies.
#pragma once

#include "fastdiff/block.cuh"
#include "fastdiff/norms.h"
#include "fastdiff/packet.cuh"

namespace fastdiff::device {

constexpr int kNormThreads = 512;

struct GroupNormLaunch {
  FeatureMap map;
  ChannelFactors factors;
  int64_t groups = 1;
  float eps = 0.0f;
  bool activate = true;
  const void* x = nullptr;
  void* out = nullptr;
  float* statistics = nullptr;  // (B, G, 3)
  float* partials = nullptr;    // (B, G, parts, 3): pivot, mean - pivot, squared differences from the mean
  int64_t parts = 1;            // of a slab's rows
  int slab_channels = 0;        // whole groups; channels first: of one group
  int ranks = 1;                // blocks of a cluster
};

// The rows of one slab. Channels last: a row is a pixel. Channels first: a row is one packet.
template <int kCount, bool kLast>
struct Slab {
  int64_t per_group, slabs, sample, first, rows, stride, base, held;
  int width, groups, packets;

  FASTDIFF_HD Slab(const GroupNormLaunch& args, int64_t index)
      : per_group(args.map.channels / args.groups),
        slabs((args.map.channels + args.slab_channels - 1) / args.slab_channels),
        sample(index / slabs),
        first(index % slabs * args.slab_channels) {
    const int64_t left = args.map.channels - first;
    const int64_t channels = left < args.slab_channels ? left : args.slab_channels;
    groups = static_cast<int>(channels / per_group);
    width = kLast ? static_cast<int>(channels) : kCount;
    rows = kLast ? args.map.pixels : channels * args.map.pixels / kCount;
    stride = kLast ? args.map.channels : kCount;
    base = sample * args.map.channels * args.map.pixels + first * (kLast ? 1 : args.map.pixels);
    held = kLast ? per_group : kCount;  // elements of a group in a row
    packets = width / kCount;
  }
  // The channel of element k of this thread's packet in a row; a slab has fewer than 2**32 elements.
  FASTDIFF_HD int64_t channel(const GroupNormLaunch& args, int64_t row, int column, int k) const {
    if (kLast) return first + column + k;
    return first + static_cast<uint32_t>(row * kCount) / static_cast<uint32_t>(args.map.pixels);
  }
};

// A thread's share of the rows begin ... end - 1: every `step`-th, always the same columns.
struct Share {
  int64_t row, step;
  int column;
  bool idle;

  FASTDIFF_HD Share(int thread, int threads, int packets, int count, int64_t begin)
      : row(begin + thread / packets),
        step(threads / packets),
        column(thread % packets * count),
        idle(thread >= threads / packets * packets) {}
};

// Sums over each group of what every thread found, in `totals`; the order of additions is fixed. `scratch`
// holds threads * kCount floats where channels are last, else `threads`.
template <int kCount, bool kLast, class Block>
FASTDIFF_HD void sum_groups(const Block& block, const Slab<kCount, kLast>& slab, const float (&found)[kCount],
                            bool idle, float* scratch, float* totals) {
  block.sync();  // whoever read the scratch has done so
  if (kLast) {
    for (int k = 0; k < kCount; ++k) {
      if (!idle) scratch[block.thread * kCount + k] = found[k];
    }
  } else {
    float sum = 0.0f;
    for (int k = 0; k < kCount; ++k) sum += found[k];
    scratch[block.thread] = sum;
  }
  block.sync();
  const int lane = block.thread % 32;
  const int lines = kLast ? block.threads / slab.packets : block.threads;
  const int held = kLast ? static_cast<int>(slab.per_group) : 1, width = kLast ? slab.width : 1;
  for (int group = block.thread / 32; group < slab.groups; group += block.threads / 32) {
    float sum = 0.0f;
    for (int i = lane; i < lines * held; i += 32) sum += scratch[i / held * width + group * held + i % held];
    sum = warp_sum(block, sum);
    if (lane == 0) totals[group] = sum;
  }
  block.sync();
}

// factor = weight * (1 + scale) / deviation, offset = bias * (1 + scale) + shift of a channel.
FASTDIFF_HD void channel_factors(const GroupNormLaunch& args, int64_t sample, int64_t c, float reciprocal,
                                 float& factor, float& offset) {
  const ChannelFactors& f = args.factors;
  const float scale = f.scale ? 1.0f + f.scale[sample * f.scale_stride + c] : 1.0f;
  factor = reciprocal * (f.weight ? f.weight[c] * scale : scale);
  offset = (f.bias ? f.bias[c] * scale : 0.0f) + (f.shift ? f.shift[sample * f.shift_stride + c] : 0.0f);
}

// (mean, rest of the mean, 1 / deviation) of the groups of a slab, in shared memory.
struct Statistics {
  float *mean, *rest, *reciprocal;
};

FASTDIFF_HD void keep(const GroupNormLaunch& args, int64_t group, const Statistics& s, int local) {
  float* row = args.statistics + group * k_statistics;
  row[k_mean] = s.mean[local];
  row[k_mean_rest] = s.rest[local];
  row[k_reciprocal] = s.reciprocal[local];
}

// Writes the thread's rows; `read` gives the packet of a row.
template <class T, int kCount, bool kLast, class Read>
FASTDIFF_HD void apply(const GroupNormLaunch& args, const Slab<kCount, kLast>& slab, const Share& share,
                       int64_t end, const Statistics& s, const Read& read) {
  if (share.idle) return;
  float mean[kCount], rest[kCount], factor[kCount], offset[kCount];
  const auto prepare = [&](int64_t row) {
    for (int k = 0; k < kCount; ++k) {
      const int64_t c = slab.channel(args, row, share.column, k);
      const int local = static_cast<int>((c - slab.first) / slab.per_group);
      mean[k] = s.mean[local];
      rest[k] = s.rest[local];
      channel_factors(args, slab.sample, c, s.reciprocal[local], factor[k], offset[k]);
      if (!kLast) {  // one channel for the whole packet
        for (int j = 1; j < kCount; ++j) {
          mean[j] = mean[0];
          rest[j] = rest[0];
          factor[j] = factor[0];
          offset[j] = offset[0];
        }
        return;
      }
    }
  };
  if (kLast) prepare(0);
  for (int64_t row = share.row; row < end; row += share.step) {
    if (!kLast) prepare(row);
    Packet<T, kCount> packet = read(row);
    for (int k = 0; k < kCount; ++k) {
      const float value = to_float(packet.v[k], args.map.element);
      const float u = ((value - mean[k]) - rest[k]) * factor[k] + offset[k];
      from_float(args.activate ? u / (1.0f + expf(-u)) : u, args.map.element, packet.v[k]);
    }
    *reinterpret_cast<Packet<T, kCount>*>(static_cast<T*>(args.out) + slab.base + row * slab.stride +
                                          share.column) = packet;
  }
}

template <class T, int kCount>
FASTDIFF_HD Packet<T, kCount> packet_at(const void* data, int64_t at) {
  return *reinterpret_cast<const Packet<T, kCount>*>(static_cast<const T*>(data) + at);
}

// Shared memory of a block, in floats: two rows of totals for the cluster, the statistics, the scratch, the
// slab.
FASTDIFF_HD int64_t norm_scratch(int threads, int count, bool last) {
  return static_cast<int64_t>(threads) * (last ? count : 1);
}
constexpr int kMostGroups = 128;  // of a slab
constexpr int kNormTables = 5 * kMostGroups;

// Adds up the totals of all blocks of the cluster, in the order of their ranks.
template <class Block>
FASTDIFF_HD float over_cluster(const Block& block, const float* totals, int group) {
  float sum = 0.0f;
  for (int rank = 0; rank < block.ranks; ++rank) sum += block.of_rank(totals, rank)[group];
  return sum;
}

// One block of a cluster of `ranks` holds every ranks-th stretch of the rows of slab `index`.
template <class T, int kCount, bool kLast, class Block>
FASTDIFF_HD void group_norm_slab(const GroupNormLaunch& args, const Block& block, int64_t index,
                                 float* shared) {
  const Slab<kCount, kLast> slab(args, index);
  float *sums = shared, *squares = shared + kMostGroups, *scratch = shared + kNormTables;
  const Statistics s{shared + 2 * kMostGroups, shared + 3 * kMostGroups, shared + 4 * kMostGroups};
  T* const kept = reinterpret_cast<T*>(scratch + norm_scratch(block.threads, kCount, kLast));
  const int64_t stretch = (slab.rows + block.ranks - 1) / block.ranks, begin = block.rank * stretch;
  const int64_t end = begin + stretch < slab.rows ? begin + stretch : slab.rows;
  const Share share(block.thread, block.threads, slab.packets, kCount, begin);
  const auto place = [&](int64_t row) {
    return reinterpret_cast<Packet<T, kCount>*>(kept + (row - begin) * slab.width + share.column);
  };

  float found[kCount] = {}, squared[kCount] = {};
  for (int64_t row = share.row; row < end && !share.idle; row += share.step) {
    const auto packet = packet_at<T, kCount>(args.x, slab.base + row * slab.stride + share.column);
    *place(row) = packet;
    for (int k = 0; k < kCount; ++k) found[k] += to_float(packet.v[k], args.map.element);
  }
  sum_groups(block, slab, found, share.idle, scratch, sums);
  block.sync_cluster();
  const float size = static_cast<float>(slab.held * slab.rows);
  for (int g = block.thread; g < slab.groups; g += block.threads)
    s.mean[g] = over_cluster(block, sums, g) / size;
  block.sync();
  block.sync_cluster();  // all have read the sums

  // Two passes with correction (Chan, Golub, LeVeque 1983): what the rounded mean misses is measured too.
  for (int k = 0; k < kCount; ++k) found[k] = 0.0f;
  for (int64_t row = share.row; row < end && !share.idle; row += share.step) {
    const auto packet = *place(row);
    for (int k = 0; k < kCount; ++k) {
      const int local = kLast ? static_cast<int>((share.column + k) / slab.per_group) : 0;
      const float apart = to_float(packet.v[k], args.map.element) - s.mean[local];
      found[k] += apart;
      squared[k] += apart * apart;
    }
  }
  sum_groups(block, slab, found, share.idle, scratch, sums);
  sum_groups(block, slab, squared, share.idle, scratch, squares);
  block.sync_cluster();
  for (int g = block.thread; g < slab.groups; g += block.threads) {
    s.rest[g] = over_cluster(block, sums, g) / size;
    const float variance = over_cluster(block, squares, g) / size - s.rest[g] * s.rest[g];
    s.reciprocal[g] = 1.0f / sqrtf(unless_infinite(variance < 0.0f ? 0.0f : variance) + args.eps);
    if (block.rank == 0) keep(args, slab.sample * args.groups + slab.first / slab.per_group + g, s, g);
  }
  block.sync();
  block.sync_cluster();  // no block ends while another reads its totals
  apply<T>(args, slab, share, end, s, [&](int64_t row) { return *place(row); });
}

// The rows of one part of a slab.
template <int kCount, bool kLast>
struct Part {
  int64_t number, begin, end;

  FASTDIFF_HD Part(const GroupNormLaunch& args, const Slab<kCount, kLast>& slab, int64_t block_index)
      : number(block_index % args.parts) {
    const int64_t length = (slab.rows + args.parts - 1) / args.parts;
    begin = number * length < slab.rows ? number * length : slab.rows;
    end = begin + length < slab.rows ? begin + length : slab.rows;
  }
};

// The middle one of three values of a group. Of one value alone a single loud pixel could be taken, and every
// other number would lose its digits to it.
template <class T, int kCount, bool kLast>
FASTDIFF_HD float pivot_of(const GroupNormLaunch& args, const Slab<kCount, kLast>& slab,
                           const Part<kCount, kLast>& part, int group) {
  const int64_t begin = part.begin < slab.rows ? part.begin : 0,
                end = part.end > begin ? part.end : begin + 1;
  const int64_t width = slab.held, from = slab.base + (kLast ? group * slab.per_group : 0);
  const auto at = [&](int64_t row, int64_t column) {
    return to_float(static_cast<const T*>(args.x)[from + row * slab.stride + column], args.map.element);
  };
  const float a = at(begin, 0), b = at((begin + end) / 2, width - 1), c = at(end - 1, width / 2);
  return fmaxf(fminf(a, b), fminf(fmaxf(a, b), c));
}

// First launch: a running mean in every thread (Welford 1962), relative to one value of the group.
template <class T, int kCount, bool kLast, class Block>
FASTDIFF_HD void group_norm_part(const GroupNormLaunch& args, const Block& block, int64_t index,
                                 float* shared) {
  const Slab<kCount, kLast> slab(args, index / args.parts);
  const Part<kCount, kLast> part(args, slab, index);
  float *means = shared, *squares = shared + kMostGroups, *pivots = shared + 2 * kMostGroups;
  float* const scratch = shared + kNormTables;
  const Share share(block.thread, block.threads, slab.packets, kCount, part.begin);
  for (int g = block.thread; g < slab.groups; g += block.threads)
    pivots[g] = pivot_of<T>(args, slab, part, g);
  block.sync();
  const auto local = [&](int k) { return kLast ? static_cast<int>((share.column + k) / slab.per_group) : 0; };
  float from[kCount], mean[kCount] = {}, squared[kCount] = {}, seen = 0.0f;
  for (int k = 0; k < kCount; ++k) from[k] = share.idle ? 0.0f : pivots[local(k)];
  for (int64_t row = share.row; row < part.end && !share.idle; row += share.step) {
    const auto packet = packet_at<T, kCount>(args.x, slab.base + row * slab.stride + share.column);
    seen += 1.0f;
    const float weight = 1.0f / seen;
    for (int k = 0; k < kCount; ++k) {
      const float value = to_float(packet.v[k], args.map.element) - from[k], change = value - mean[k];
      mean[k] += change * weight;
      squared[k] += change * (value - mean[k]);
    }
  }
  float found[kCount];
  for (int k = 0; k < kCount; ++k) found[k] = seen * mean[k];
  sum_groups(block, slab, found, share.idle, scratch, means);
  const int64_t count = slab.held * (part.end - part.begin);
  for (int k = 0; k < kCount; ++k) {
    const float apart =
        share.idle || count == 0 ? 0.0f : mean[k] - means[local(k)] / static_cast<float>(count);
    found[k] = squared[k] + seen * (apart * apart);
  }
  sum_groups(block, slab, found, share.idle, scratch, squares);
  for (int g = block.thread; g < slab.groups; g += block.threads) {
    const int64_t group = slab.sample * args.groups + slab.first / slab.per_group + g;
    float* row = args.partials + (group * args.parts + part.number) * 3;
    row[0] = pivots[g];
    row[1] = count == 0 ? 0.0f : means[g] / static_cast<float>(count);
    row[2] = squares[g];
  }
}

// Second launch: joins the parts of its groups (Chan et al. 1979) and applies.
template <class T, int kCount, bool kLast, class Block>
FASTDIFF_HD void group_norm_apply(const GroupNormLaunch& args, const Block& block, int64_t index,
                                  float* shared) {
  const Slab<kCount, kLast> slab(args, index / args.parts);
  const Part<kCount, kLast> part(args, slab, index);
  const Statistics s{shared, shared + kMostGroups, shared + 2 * kMostGroups};
  const int64_t length = (slab.rows + args.parts - 1) / args.parts;
  const int lane = block.thread % 32;
  const float size = static_cast<float>(slab.held * slab.rows);
  for (int g = block.thread / 32; g < slab.groups; g += block.threads / 32) {
    const int64_t group = slab.sample * args.groups + slab.first / slab.per_group + g;
    const float* const row = args.partials + group * args.parts * 3;
    const auto count = [&](int64_t i) {
      const int64_t left = slab.rows - i * length;
      return static_cast<float>(slab.held * (left < 0 ? 0 : left < length ? left : length));
    };
    float mean = 0.0f, rest = 0.0f, squares = 0.0f;
    for (int64_t i = lane; i < args.parts; i += 32) mean += count(i) * row[3 * i];
    mean = warp_sum(block, mean) / size;
    for (int64_t i = lane; i < args.parts; i += 32) rest += count(i) * ((row[3 * i] - mean) + row[3 * i + 1]);
    rest = warp_sum(block, rest) / size;
    for (int64_t i = lane; i < args.parts; i += 32) {
      const float apart = ((row[3 * i] - mean) + row[3 * i + 1]) - rest;
      squares += row[3 * i + 2] + count(i) * (apart * apart);
    }
    squares = warp_sum(block, squares);
    if (lane != 0) continue;
    s.mean[g] = mean;
    s.rest[g] = rest;
    s.reciprocal[g] = 1.0f / sqrtf(unless_infinite(squares / size) + args.eps);
    if (part.number == 0) keep(args, group, s, g);
  }
  block.sync();
  const Share share(block.thread, block.threads, slab.packets, kCount, part.begin);
  apply<T>(args, slab, share, part.end, s, [&](int64_t row) {
    return packet_at<T, kCount>(args.x, slab.base + row * slab.stride + share.column);
  });
}

#ifdef __CUDACC__
template <class T, int kCount, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 1)
    group_norm_slab_kernel(const __grid_constant__ GroupNormLaunch args) {
  extern __shared__ __align__(16) float shared[];
  group_norm_slab<T, kCount, kLast>(args, Block(args.ranks), blockIdx.x / args.ranks, shared);
}

template <class T, int kCount, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 1)
    group_norm_part_kernel(const __grid_constant__ GroupNormLaunch args) {
  extern __shared__ __align__(16) float shared[];
  group_norm_part<T, kCount, kLast>(args, Block(), blockIdx.x, shared);
}

template <class T, int kCount, bool kLast>
__global__ void __launch_bounds__(kNormThreads, 1)
    group_norm_apply_kernel(const __grid_constant__ GroupNormLaunch args) {
  extern __shared__ __align__(16) float shared[];
  group_norm_apply<T, kCount, kLast>(args, Block(), blockIdx.x, shared);
}
#endif

}  // namespace fastdiff::device
