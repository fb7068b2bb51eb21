// What the bindings of channel_statistics, pixel_norms and norm_factors share.
#pragma once

#include <algorithm>

#include "fastdiff/statistics.h"
#include "feature_maps.h"

namespace fastdiff {

constexpr int64_t kThreadNumbers = 16384;  // fewer numbers do not pay for waking a thread

// Units of work of so many numbers each that a thread takes at least.
inline int64_t grain_of(int64_t numbers) {
  return std::max<int64_t>(1, kThreadNumbers / std::max<int64_t>(1, numbers));
}

// A float32 map whose channels are last.
inline FeatureMap last_map(const Tensor& x, const char* name) {
  const bool fits =
      is_here(x) && x.scalar_type() == ScalarType::Float && x.dim() == 4 && dense_in_order(x, true);
  STD_TORCH_CHECK(fits, name, " must be float32 (B, C, H, W), channels last");
  FeatureMap map;
  map.batch = x.size(0);
  map.channels = x.size(1);
  map.pixels = times(x.size(2), x.size(3));
  map.channels_last = true;
  return map;
}

}  // namespace fastdiff
