// From torch's tensors (stable ABI) to the plain arguments of the kernels.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>

#include "fastdiff/rows.h"
#include "fastdiff/tile.h"

namespace fastdiff {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Elements from the first that a tensor reaches to behind the last one.
inline int64_t reach_of(const Tensor& t) {
  if (t.numel() == 0) return 0;
  const auto sizes = t.sizes(), strides = t.strides();
  int64_t reach = 1;
  for (size_t d = 0; d < sizes.size(); ++d) reach += (sizes[d] - 1) * strides[d];
  return reach;
}

// A storage may have been made smaller behind the back of a tensor, as sharded training does between steps.
inline bool is_in_memory(const Tensor& t) {
  int64_t bytes = 0;
  STD_TORCH_CHECK(aoti_torch_get_storage_size(t.get(), &bytes) == AOTI_TORCH_SUCCESS,
                  "fastdiff: torch does not tell the size of a tensor's memory");
  const int64_t reach = reach_of(t);
  return reach == 0 || (t.storage_offset() + reach) * static_cast<int64_t>(t.element_size()) <= bytes;
}

// Where this translation unit's kernels run, with all of its memory.
inline bool is_here(const Tensor& t) {
#ifdef __CUDACC__
  return t.is_cuda() && is_in_memory(t);
#else
  return t.is_cpu() && is_in_memory(t);
#endif
}

// The product of two sizes of a tensor. Of one without elements it need not fit 64 bits.
inline int64_t times(int64_t a, int64_t b) {
  int64_t product = 0;
  const bool fits = !__builtin_mul_overflow(a, b, &product) && product < (int64_t{1} << 48);
  STD_TORCH_CHECK(fits, "fastdiff: sizes must have a product below 2**48, got ", a, " times ", b);
  return product;
}

inline Samples samples_of(const Tensor& x) {
  const int64_t batch = x.size(0);
  return {batch, batch == 0 ? 0 : x.numel() / batch};
}

inline Element element_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Element::f32;
    case ScalarType::Half:
      return Element::f16;
    case ScalarType::BFloat16:
      return Element::bf16;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float16 or bfloat16");
  }
}

// The row of noise, a word of its counter.
inline void check_row(int64_t row, const char* op) {
  STD_TORCH_CHECK(row >= 0 && row < (int64_t{1} << 32), op, ": row must be in [0, 2**32), got ", row);
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != b.size(d)) return false;
  }
  return true;
}

// A tensor of x's shape in any strides and floating type.
inline Source source_of(const OptionalTensor& tensor, const Tensor& x, const char* name) {
  Source source;
  if (!tensor.has_value()) return source;
  const Tensor& t = *tensor;
  STD_TORCH_CHECK(is_here(t) && t.get_device() == x.get_device(), name, " must be on the device of the op");
  STD_TORCH_CHECK(t.dim() >= 2 && t.dim() <= kMaxDims, name, " must have 2 to ", kMaxDims, " dimensions");
  STD_TORCH_CHECK(same_shape(t, x), name, " must have the shape of x");
  source.data = t.const_data_ptr();
  source.element = element_of(t, name);
  source.sample_stride = t.stride(0);
  const bool filled = t.numel() > 0;
  for (int64_t d = 1; d < t.dim(); ++d) {
    const int64_t size = t.size(d), stride = t.stride(d);
    if (size == 1) continue;
    const int last = source.dims - 1;
    if (last >= 0 && filled && source.strides[last] == size * stride) {
      source.sizes[last] *= size;
      source.strides[last] = stride;
    } else {
      source.sizes[source.dims] = size;
      source.strides[source.dims++] = stride;
    }
  }
  if (source.dims == 0) {
    source.dims = 1;
    source.sizes[0] = source.strides[0] = 1;
  }
  return source;
}

// A tensor (..., width) of any strides and floating type as a matrix.
inline Rows rows_of(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(is_here(t), name, " must be on the device of the op");
  STD_TORCH_CHECK(t.dim() >= 1 && t.dim() <= kMaxDims, name, " must have 1 to ", kMaxDims, " dimensions");
  Rows rows;
  rows.data = t.const_data_ptr();
  rows.element = element_of(t, name);
  rows.width = t.size(-1);
  rows.step = rows.width > 1 ? t.stride(-1) : 1;
  rows.count = 1;
  const bool filled = t.numel() > 0;
  for (int64_t d = 0; d + 1 < t.dim(); ++d) {
    const int64_t size = t.size(d), stride = t.stride(d), last = rows.dims - 1;
    rows.count = times(rows.count, size);
    if (size == 1) continue;
    if (last >= 0 && filled && rows.strides[last] == size * stride) {
      rows.sizes[last] *= size;
      rows.strides[last] = stride;
    } else {
      rows.sizes[rows.dims] = size;
      rows.strides[rows.dims++] = stride;
    }
  }
  return rows;
}

inline const char* name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    default:
      return "float32";
  }
}

inline void check_dense(const Tensor& t, const char* name, ScalarType type) {
  STD_TORCH_CHECK(is_here(t) && t.is_contiguous() && t.scalar_type() == type, name, " must be a contiguous ",
                  name_of(type), " tensor on the device of the op");
}

// A dense float32 tensor of x's shape.
inline float* dense_like(const OptionalTensor& t, const Tensor& x, const char* name) {
  if (!t.has_value()) return nullptr;
  check_dense(*t, name, ScalarType::Float);
  STD_TORCH_CHECK(same_shape(*t, x), name, " must have the shape of x");
  return static_cast<float*>(t->mutable_data_ptr());
}

// A dense float32 tensor (count,), or (count, width) for a width above 0.
inline float* dense_floats(const OptionalTensor& t, const char* name, int64_t count, int64_t width = 0) {
  if (!t.has_value()) return nullptr;
  check_dense(*t, name, ScalarType::Float);
  const bool fits = width == 0 ? t->dim() == 1 : t->dim() == 2 && t->size(1) == width;
  if (width == 0) STD_TORCH_CHECK(fits && t->size(0) == count, name, " must have the shape (", count, ",)");
  STD_TORCH_CHECK(fits && t->size(0) == count, name, " must have the shape (", count, ", ", width, ")");
  return static_cast<float*>(t->mutable_data_ptr());
}

inline const int64_t* dense_integers(const OptionalTensor& t, const char* name, int64_t count) {
  if (!t.has_value()) return nullptr;
  check_dense(*t, name, ScalarType::Long);
  STD_TORCH_CHECK(t->dim() == 1 && t->numel() == count, name, " must have the shape (", count, ",)");
  return static_cast<const int64_t*>(t->const_data_ptr());
}

// Whether every element of a tensor has memory of its own, as far as the strides tell.
inline bool has_own_elements(const Tensor& t) {
  const auto sizes = t.sizes(), strides = t.strides();
  if (t.numel() == 0 || t.is_contiguous()) return true;
  for (size_t d = 0; d < sizes.size(); ++d) {
    int64_t below = 1;  // reach of the dimensions with smaller strides
    for (size_t k = 0; k < sizes.size(); ++k) {
      const bool inner = k != d && (strides[k] < strides[d] || (strides[k] == strides[d] && k > d));
      if (inner) below += (sizes[k] - 1) * strides[k];
    }
    if (sizes[d] > 1 && strides[d] < below) return false;
  }
  return true;
}

// The memory that a tensor reaches; none where there is no tensor or no element.
struct Extent {
  const char *begin = nullptr, *end = nullptr;
  int64_t device = 0;

  Extent() = default;
  explicit Extent(const Tensor& t) {
    const int64_t reach = reach_of(t);
    if (reach == 0) return;
    begin = static_cast<const char*>(t.const_data_ptr());
    end = begin + reach * static_cast<int64_t>(t.element_size());
    device = t.get_device();
  }
  explicit Extent(const OptionalTensor& t) : Extent(t.has_value() ? Extent(*t) : Extent()) {}

  bool meets(const Extent& other) const {
    return begin && other.begin && begin < other.end && other.begin < end;
  }
};

inline bool overlap(const OptionalTensor& a, const OptionalTensor& b) {
  return Extent(a).meets(Extent(b));
}

// All is on one device, and what is written meets neither what is read nor anything else that is written.
inline void check_apart(const char* op, std::initializer_list<Extent> written,
                        std::initializer_list<Extent> read) {
  bool apart = true, together = true;
  for (auto one = written.begin(); one != written.end(); ++one) {
    const auto look = [&](const Extent& other) {
      apart = apart && !one->meets(other);
      together = together && (!one->begin || !other.begin || one->device == other.device);
    };
    std::for_each(read.begin(), read.end(), look);
    std::for_each(one + 1, written.end(), look);
  }
  STD_TORCH_CHECK(together, op, ": tensors must be on one device");
  STD_TORCH_CHECK(apart, op, ": what is written must not share memory with another tensor");
}

// Runs f(begin, end) over all tiles on torch's own threads; a thread gets at least eight tiles.
template <class F>
void for_tiles(const Samples& samples, const F& f) {
  const int64_t tiles = samples.batch * samples.tiles();
  if (tiles > 0) torch::stable::parallel_for(0, tiles, 8, f);
}

}  // namespace fastdiff
