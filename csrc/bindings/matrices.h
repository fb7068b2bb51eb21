// From torch's tensors (..., rows, width) to matrices.
#pragma once

#include <new>

#include "fastdiff/matrices.h"
#include "tensors.h"

namespace fastdiff {

inline Matrices matrices_of(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(is_here(t), name, " must be on the CPU");
  STD_TORCH_CHECK(t.dim() >= 2 && t.dim() <= kMaxDims, name, " must have 2 to ", kMaxDims, " dimensions");
  Matrices m;
  m.data = t.const_data_ptr();
  m.element = element_of(t, name);
  m.rows = t.size(-2);
  m.width = t.size(-1);
  m.row_stride = t.stride(-2);
  m.step = m.width > 1 ? t.stride(-1) : 1;
  for (int64_t d = 0; d + 2 < t.dim(); ++d) {
    m.count = times(m.count, t.size(d));
    if (t.size(d) == 1) continue;
    m.sizes[m.dims] = t.size(d);
    m.strides[m.dims++] = t.stride(d);
  }
  return m;
}

// Whether the leading dimensions of two tensors are the same.
inline bool same_heads(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d + 2 < a.dim(); ++d) {
    if (a.size(d) != b.size(d)) return false;
  }
  return true;
}

// What softmax(q k^T) v asks of the four matrices; out has dense rows.
inline void check_attention(const Matrices& q, const Matrices& k, const Matrices& v, const Matrices& out,
                            const char* op) {
  STD_TORCH_CHECK(q.width == k.width && q.width > 0, op, ": q must be as wide as k");
  STD_TORCH_CHECK(k.rows == v.rows && k.rows > 0, op, ": k and v must have equally many rows");
  STD_TORCH_CHECK(out.rows == q.rows && out.width == v.width && out.step == 1, op,
                  ": out must be (..., rows of q, width of v), rows dense");
}

// The matrices that an attention writes.
inline Matrices written_matrices_of(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(has_own_elements(t), name, " must have memory for each element");
  return matrices_of(t, name);
}

// Scratch memory of one thread, aligned to cache lines.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : data_(static_cast<float*>(::operator new(static_cast<size_t>(floats) * sizeof(float), kAlign))) {}
  ~Scratch() { ::operator delete(data_, kAlign); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  float* data_;
};

}  // namespace fastdiff
