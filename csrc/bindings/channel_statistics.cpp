// fastdiff::channel_statistics_cpp, the C++ backend of fastdiff/ops/channel_statistics.py.
#include "fastdiff/cpu_kernels.h"
#include "statistics.h"
#include "tape.h"

namespace fastdiff {
namespace {

void channel_statistics(Tensor statistics, Tensor x) {
  ChannelStatisticsArgs args;
  args.map = last_map(x, "channel_statistics: x");
  const int64_t most = pixels_per_part(args.map), parts = (args.map.pixels + most - 1) / most;
  args.x = static_cast<const float*>(x.const_data_ptr());
  args.statistics = floats_of_shape(statistics, {args.map.batch, parts, 3, args.map.channels},
                                    "channel_statistics: statistics");
  check_apart("channel_statistics", {Extent(statistics)}, {Extent(x)});
  const auto call = [args, units = args.map.batch * parts, least = grain_of(most * args.map.channels)] {
    torch::stable::parallel_for(0, units, least, [&args](int64_t begin, int64_t end) {
      cpu_kernels().channel_statistics(args, begin, end);
    });
  };
  compute_or_write(call, statistics, x);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("channel_statistics_cpp(Tensor(a!) statistics, Tensor x) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("channel_statistics_cpp", TORCH_BOX(&channel_statistics));
}

}  // namespace fastdiff
