// norm_factors: partial statistics to a factor and an offset per channel, see fastdiff/ops/norm_factors.py.
#include "channel_factors.h"
#include "entries.h"
#include "moments.h"

namespace fastdiff::FASTDIFF_ISA {

// The stretches of each channel as one: means and squared deviations; returns how many numbers a channel has.
// Means are joined as distances from that of the first stretch.
static float join_stretches(const float* statistics, int64_t stretches, int64_t channels, float* mean,
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
    access.template put<F32>(mean + c, pivot + offset);
    access.template put<F32>(squares + c, within);
  });
  return total;
}

// Channels first ... end - 1 as one set of numbers; those before `channels` have count[0] each, the others
// count[1]. Means are joined as distances from that of the first channel.
static Spread join_channels(const float* count, int64_t channels, const float* mean, const float* squares,
                            int64_t first, int64_t end) {
  const int64_t border = channels < first ? first : channels > end ? end : channels;
  const double pivot = mean[first];
  double sums[2] = {}, gaps[2] = {}, within = 0.0;
  for (int64_t c = first; c < end; ++c) {
    const double gap = mean[c] - pivot;
    const int map = c < border ? 0 : 1;
    sums[map] += gap;
    gaps[map] += gap * gap;
    within += squares[c];
  }
  Spread all{};
  all.count = count[0] * static_cast<double>(border - first) + count[1] * static_cast<double>(end - border);
  const double moved = (count[0] * sums[0] + count[1] * sums[1]) / all.count;
  all.mean = pivot + moved;
  all.squares = within + (count[0] * gaps[0] + count[1] * gaps[1]) - all.count * moved * moved;
  return all;
}

void norm_factors(const NormFactorsArgs& args, int64_t begin, int64_t end) {
  const int64_t channels = args.channels[0] + args.channels[1], width = channels / args.groups;
  for (int64_t sample = begin; sample < end; ++sample) {
    float *const mean = args.out + 2 * sample * channels, *const squares = mean + channels;
    float count[2] = {};
    for (int i = 0; i < 2; ++i) {
      const int64_t place = i == 0 ? 0 : args.channels[0];
      const float* from = args.statistics[i] + 3 * sample * args.stretches[i] * args.channels[i];
      if (args.channels[i] > 0)
        count[i] = join_stretches(from, args.stretches[i], args.channels[i], mean + place, squares + place);
    }
    for (int64_t first = 0; first < channels; first += width) {
      const Spread all = join_channels(count, args.channels[0], mean, squares, first, first + width);
      const double reciprocal = 1.0 / __builtin_sqrt(all.squares / all.count + args.eps);
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
