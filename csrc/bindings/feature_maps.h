// From torch's tensors to the arguments of the normalisations.
#pragma once

#include <string>

#include "fastdiff/norms.h"
#include "tensors.h"

namespace fastdiff {

// Whether the dimensions, from the innermost on, are dense; sizes of 1 may have any stride.
inline bool dense_in_order(const Tensor& t, bool channels_last) {
  if (t.numel() == 0) return true;
  int64_t expected = 1;
  const auto fits = [&](int64_t d) {
    const bool good = t.size(d) == 1 || t.stride(d) == expected;
    expected *= t.size(d);
    return good;
  };
  if (channels_last && !fits(1)) return false;
  for (int64_t d = t.dim() - 1; d > 1; --d) {
    if (!fits(d)) return false;
  }
  return (channels_last || fits(1)) && fits(0);
}

inline FeatureMap feature_map_of(const Tensor& x, const char* op) {
  STD_TORCH_CHECK(is_here(x) && x.dim() >= 2 && x.size(1) >= 1, op,
                  ": x must be (B, C, ...) with C >= 1 on the device of the op");
  FeatureMap map;
  map.batch = x.size(0);
  map.channels = x.size(1);
  map.pixels = 1;
  for (int64_t d = 2; d < x.dim(); ++d) map.pixels = times(map.pixels, x.size(d));
  map.element = element_of(x, "x");
  map.channels_last = dense_in_order(x, true) && !(map.channels == 1 && map.pixels > 1);
  STD_TORCH_CHECK(map.channels_last || dense_in_order(x, false), op, ": x must be dense");
  return map;
}

// A tensor of x's type, shape and order of elements.
inline void* same_map(const Tensor& t, const Tensor& x, const FeatureMap& map, const char* name) {
  const bool fits = is_here(t) && t.scalar_type() == x.scalar_type() && same_shape(t, x) &&
                    dense_in_order(t, map.channels_last);
  STD_TORCH_CHECK(fits, name, " must have the type, shape and order of elements of x");
  return t.mutable_data_ptr();
}

// Rows of float32, (B, C), dense within a row.
inline const float* factor_rows(const OptionalTensor& t, const FeatureMap& map, const char* name,
                                int64_t& stride) {
  if (!t.has_value()) return nullptr;
  const bool fits = is_here(*t) && t->scalar_type() == ScalarType::Float && t->dim() == 2 &&
                    t->size(0) == map.batch && t->size(1) == map.channels &&
                    (t->stride(1) == 1 || map.channels == 1 || map.batch == 0);
  STD_TORCH_CHECK(fits, name, " must be float32 (B, C) with dense rows");
  stride = t->stride(0);
  return static_cast<const float*>(t->const_data_ptr());
}

inline ChannelFactors factors_of(const FeatureMap& map, const OptionalTensor& weight,
                                 const OptionalTensor& bias, const OptionalTensor& scale,
                                 const OptionalTensor& shift) {
  ChannelFactors factors;
  factors.weight = dense_floats(weight, "weight", map.channels);
  factors.bias = dense_floats(bias, "bias", map.channels);
  factors.scale = factor_rows(scale, map, "scale", factors.scale_stride);
  factors.shift = factor_rows(shift, map, "shift", factors.shift_stride);
  return factors;
}

inline std::string listed(std::initializer_list<int64_t> sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return text;
}

// A dense float32 tensor.
inline float* floats_of_shape(const Tensor& t, std::initializer_list<int64_t> shape, const char* name) {
  check_dense(t, name, ScalarType::Float);
  bool fits = t.dim() == static_cast<int64_t>(shape.size());
  for (int64_t d = 0; fits && d < t.dim(); ++d) fits = t.size(d) == shape.begin()[d];
  STD_TORCH_CHECK(fits, name, " must have the shape (", listed(shape), ")");
  return static_cast<float*>(t.mutable_data_ptr());
}

}  // namespace fastdiff
