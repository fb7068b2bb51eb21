// A tape: calls of kernels with their arguments prepared, written down once and run again without torch
// between.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace fastdiff {

struct Tape {
  std::vector<std::function<void()>> calls;
  std::vector<torch::stable::Tensor> held;  // what the calls read and write

  void hold(const torch::stable::Tensor& tensor) { held.push_back(tensor); }
  void hold(const std::optional<torch::stable::Tensor>& tensor) {
    if (tensor.has_value()) held.push_back(*tensor);
  }
};

// The tape that calls of this thread are written to; null while they are computed. It stays until it is
// closed, whoever deletes its number meanwhile.
inline thread_local std::shared_ptr<Tape> open_tape;

// Computes a call, which holds copies of all it needs but the memory of its tensors, or writes it to the open
// tape, which keeps those alive: all of them must be named, the result first.
template <class Call, class... Tensors>
void compute_or_write(Call call, const torch::stable::Tensor& out, const Tensors&... tensors) {
  if (open_tape) {
    open_tape->hold(out);
    (open_tape->hold(tensors), ...);
    open_tape->calls.emplace_back(std::move(call));
  } else {
    call();
  }
}

}  // namespace fastdiff
