// norm_factors: partial statistics to a factor and an offset per channel, see fastdiff/ops/norm_factors.py.
#include "channel_factors.h"
#include "entries.h"
#include "moments.h"

namespace fastdiff::FASTDIFF_ISA {

// The stretches of each channel as one: squared deviations, and the mean as its distance from that of the
// first stretch; returns how many numbers a channel has.
static float join_stretches(const float* statistics, int64_t stretches, int64_t channels, float* distance,
                            float* squares) {
  float total = 0.0f;
  for (int64_t p = 0; p < stretches; ++p) total += statistics[3 * p * channels];
  each_vector(channels, [&](int64_t c, auto access) {
    const auto get = [&](int64_t p, int which) {
      return access.template get<F32>(statistics + (3 * p + which) * channels + c);
    };
    const Floats pivot = get(0, 1);
    Floats offset{}, within{};
    for (int64_t p = 1; p < stretches; ++p)
      offset += (get(p, 1) - pivot) * (statistics[3 * p * channels] / total);
    for (int64_t p = 0; p < stretches; ++p) {
      const Floats gap = (get(p, 1) - pivot) - offset;
      within += get(p, 2) + gap * gap * statistics[3 * p * channels];
    }
    access.template put<F32>(distance + c, offset);
    access.template put<F32>(squares + c, within);
  });
  return total;
}

// A sample's channels of one map, or of two that are concatenated: how many numbers each has, and the mean of
// its first stretch, with `distance` from that to the mean of all.
struct JoinedStretches {
  int64_t channels;  // of the first map
  float count[2];
  const float *first[2], *distance, *squares;

  double mean(int64_t c) const {
    const float start = c < channels ? first[0][c] : first[1][c - channels];
    return static_cast<double>(start) + static_cast<double>(distance[c]);
  }
};

// Channels first ... end - 1 as one set of numbers. Means are joined as distances from that of the first
// channel.
static Spread join_channels(const JoinedStretches& of, int64_t first, int64_t end) {
  const int64_t border = of.channels < first ? first : of.channels > end ? end : of.channels;
  const double pivot = of.mean(first);
  double sums[2] = {}, gaps[2] = {}, within = 0.0;
  for (int64_t c = first; c < end; ++c) {
    const double gap = of.mean(c) - pivot;
    const int map = c < border ? 0 : 1;
    sums[map] += gap;
    gaps[map] += gap * gap;
    within += of.squares[c];
  }
  const double counts[2] = {of.count[0], of.count[1]};
  Spread all{};
  all.count = counts[0] * static_cast<double>(border - first) + counts[1] * static_cast<double>(end - border);
  const double moved = (counts[0] * sums[0] + counts[1] * sums[1]) / all.count;
  all.mean = pivot + moved;
  all.squares = within + (counts[0] * gaps[0] + counts[1] * gaps[1]) - all.count * moved * moved;
  return all;
}

void norm_factors(const NormFactorsArgs& args, int64_t begin, int64_t end) {
  const int64_t channels = args.channels[0] + args.channels[1], width = channels / args.groups;
  for (int64_t sample = begin; sample < end; ++sample) {
    float *const mean = args.out + 2 * sample * channels, *const squares = mean + channels;
    JoinedStretches joined{args.channels[0], {}, {}, mean, squares};
    for (int i = 0; i < 2; ++i) {
      const int64_t place = i == 0 ? 0 : args.channels[0];
      const float* from = args.statistics[i] + 3 * sample * args.stretches[i] * args.channels[i];
      if (args.channels[i] == 0) continue;
      joined.first[i] = from + args.channels[i];
      joined.count[i] =
          join_stretches(from, args.stretches[i], args.channels[i], mean + place, squares + place);
    }
    for (int64_t first = 0; first < channels; first += width) {
      const Spread all = join_channels(joined, first, first + width);
      const double variance = unless_infinite(all.squares / all.count);
      const double reciprocal = 1.0 / __builtin_sqrt(variance + args.eps);
      for (int64_t c = first; c < first + width; ++c) {
        const ChannelFactor factor = channel_factor(args.factors, sample, c);
        const double slope = factor.gain * reciprocal;
        mean[c] = static_cast<float>(slope);
        squares[c] = static_cast<float>(factor.offset - all.mean * slope);
      }
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
