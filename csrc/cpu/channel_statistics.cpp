// channel_statistics: count, mean and squared deviations of stretches of pixels, see
// fastdiff/ops/channel_statistics.py.
#include "entries.h"
#include "moments.h"

namespace fastdiff::FASTDIFF_ISA {

void channel_statistics(const ChannelStatisticsArgs& args, int64_t begin, int64_t end) {
  const int64_t channels = args.map.channels, pixels = args.map.pixels, most = pixels_per_part(args.map);
  const int64_t per_sample = (pixels + most - 1) / most;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i % per_sample * most, rows = pixels - first < most ? pixels - first : most;
    const float* x = args.x + (i / per_sample * pixels + first) * channels;
    float* const to = args.statistics + 3 * i * channels;
    const Moments m{to, to + channels, to + 2 * channels};
    column_moments<F32>(x, rows, channels, channels, m);
    each_vector(channels, [&](int64_t c, auto access) {
      const Floats mean = access.template get<F32>(m.pivot + c) + access.template get<F32>(m.offset + c);
      access.template put<F32>(to + c, broadcast(static_cast<float>(rows)));
      access.template put<F32>(to + channels + c, mean);
    });
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
