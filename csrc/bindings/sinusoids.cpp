// fastdiff::sinusoids_cpp: the sines and cosines of a time embedding, see fastdiff/engine/fuse_sinusoids.py.
#include <cmath>

#include "tape.h"
#include "tensors.h"

namespace fastdiff {
namespace {

constexpr int64_t kThreadNumbers = 4096;  // fewer sines do not pay for waking a thread

const float* floats(const Tensor& t, const char* name) {
  check_dense(t, name, ScalarType::Float);
  STD_TORCH_CHECK(t.dim() == 1, name, " must have one dimension");
  return static_cast<const float*>(t.const_data_ptr());
}

void sinusoids(Tensor out, Tensor times, Tensor frequencies, bool cosines_first) {
  const float* const at = floats(times, "sinusoids: times");
  const float* const of = floats(frequencies, "sinusoids: frequencies");
  const int64_t batch = times.numel(), half = frequencies.numel();
  check_dense(out, "sinusoids: out", ScalarType::Float);
  STD_TORCH_CHECK(out.dim() == 2 && out.size(0) == batch && out.size(1) == 2 * half,
                  "sinusoids: out must be (times, 2 frequencies)");
  STD_TORCH_CHECK(!overlap(out, times) && !overlap(out, frequencies),
                  "sinusoids: out must share no memory with times or frequencies");
  float* const to = static_cast<float*>(out.mutable_data_ptr());
  const int64_t sines = cosines_first ? half : 0, cosines = half - sines;
  const auto call = [=] {
    const int64_t grain = std::max<int64_t>(1, kThreadNumbers / std::max<int64_t>(1, 2 * half));
    torch::stable::parallel_for(0, batch, grain, [=](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        float* const row = to + 2 * half * b;
        for (int64_t h = 0; h < half; ++h) {
          const float angle = at[b] * of[h];
          row[sines + h] = std::sin(angle);
          row[cosines + h] = std::cos(angle);
        }
      }
    });
  };
  compute_or_write(call, out, times, frequencies);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("sinusoids_cpp(Tensor(a!) out, Tensor times, Tensor frequencies, bool cosines_first) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("sinusoids_cpp", TORCH_BOX(&sinusoids));
}

}  // namespace fastdiff
