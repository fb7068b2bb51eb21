// vq_code_sums: sums of the rows of each code, see fastdiff/ops/vq_code_sums.py.
#include "entries.h"
#include "read_rows.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int64_t kRun = 64;  // rows of a run, runs of a stretch: the error grows with N / 4096 at most

static Floats sum_of(const Rows& z, const int64_t* order, int64_t count, int64_t d, int n) {
  Floats total{}, stretch{};
  for (int64_t i = 0; i < count;) {
    const int64_t end = count - i < kRun ? count : i + kRun;
    Floats part{};
    for (; i < end; ++i) part += read_row(z, z.offset(order[i]), d, n);
    stretch += part;
    if (i % (kRun * kRun) != 0 && i < count) continue;
    total += stretch;
    stretch = Floats{};
  }
  return total;
}

void vq_code_sums(const VqCodeSumsArgs& args, int64_t begin, int64_t end) {
  const int64_t width = args.z.width;
  for (int64_t code = begin; code < end; ++code) {
    const int64_t first = args.starts[code], count = args.starts[code + 1] - first;
    for (int64_t d = 0; d < width; d += kLanes) {
      const int n = lanes_left(width, d);
      store_first(args.sums + code * width + d, sum_of(args.z, args.order + first, count, d, n), n);
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
