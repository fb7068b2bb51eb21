// fastdiff::vq_nearest_cpp, the C++ backend of fastdiff/ops/vq_nearest.py.
#include "vq_nearest.h"

#include <new>

#include "fastdiff/cpu_kernels.h"

namespace fastdiff {
namespace {

constexpr int64_t kAllThreadsBytes = 6 << 20;  // packed codes of all threads together
constexpr int64_t kThreadBytes =
    768 << 10;                          // packed codes of one thread: they stay in its second-level cache
constexpr int64_t kRowsPerThread = 64;  // fewer rows do not pay for packing the codebook once more
constexpr std::align_val_t kAlign{64};

// How many codes are packed at a time.
int64_t chunk_of(int64_t codes, int64_t width) {
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t bytes = std::min(kThreadBytes, kAllThreadsBytes / std::max<int64_t>(1, threads));
  const int64_t fitting = std::max<int64_t>(1, bytes / (4 * (width + 1)) / kVqCodes);
  return std::min(fitting, (codes + kVqCodes - 1) / kVqCodes) * kVqCodes;
}

void search(const VqNearestArgs& args, int64_t begin, int64_t end) {
  const int64_t bytes = vq_scratch(args.chunk, args.z.width) * static_cast<int64_t>(sizeof(float));
  struct Scratch {
    float* data;
    explicit Scratch(int64_t size) : data(static_cast<float*>(::operator new(size, kAlign))) {}
    ~Scratch() { ::operator delete(data, kAlign); }
  } scratch(bytes);
  cpu_kernels().vq_nearest(args, scratch.data, begin, end);
}

void count(const VqNearestArgs& args, int64_t* counts) {
  if (!counts) return;
  std::fill_n(counts, args.codes.count, 0);
  for (int64_t i = 0; i < args.z.count; ++i) ++counts[args.index[i]];
}

void vq_nearest(Tensor index, OptionalTensor quantised, OptionalTensor distance, OptionalTensor counts,
                Tensor z, Tensor codebook) {
  VqNearestArgs args;
  take_rows_and_codes(args, index, quantised, distance, counts, z, codebook, kVqCodes);
  int64_t* const number = counts_of(counts, args.codes.count);
  args.chunk = chunk_of(args.codes.count, args.z.width);
  torch::stable::parallel_for(0, args.z.count, kRowsPerThread,
                              [&args](int64_t begin, int64_t end) { search(args, begin, end); });
  count(args, number);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def(
      "vq_nearest_cpp(Tensor(a!) index, Tensor(b!)? quantised, Tensor(c!)? distance, Tensor(d!)? counts, "
      "Tensor z, Tensor codebook) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("vq_nearest_cpp", TORCH_BOX(&vq_nearest));
}

}  // namespace fastdiff
