// A tape: calls of kernels with their arguments prepared, written down once and run again without torch
// between.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace fastdiff {

// A call and what it reads and writes, with the addresses that it knows: a tensor may be given other memory.
struct WrittenCall {
  struct Held {
    torch::stable::Tensor tensor;
    const void* data;
  };
  std::function<void()> compute;
  std::vector<Held> held;

  void hold(const torch::stable::Tensor& tensor) { held.push_back({tensor, tensor.const_data_ptr()}); }
  void hold(const std::optional<torch::stable::Tensor>& tensor) {
    if (tensor.has_value()) hold(*tensor);
  }
};

struct Tape {
  std::mutex turn;  // of whoever writes or runs it
  std::vector<WrittenCall> calls;
};

// The tape that calls of this thread are written to; null while they are computed. It stays until it is
// closed, whoever deletes its number meanwhile.
inline thread_local std::shared_ptr<Tape> open_tape;

// Computes a call, which holds copies of all it needs but the memory of its tensors, or writes it to the open
// tape, which keeps those alive: all of them must be named, the result first.
template <class Call, class... Tensors>
void compute_or_write(Call call, const torch::stable::Tensor& out, const Tensors&... tensors) {
  if (open_tape) {
    WrittenCall written{std::move(call), {}};
    written.hold(out);
    (written.hold(tensors), ...);
    const std::lock_guard<std::mutex> turn(open_tape->turn);
    open_tape->calls.push_back(std::move(written));
  } else {
    call();
  }
}

}  // namespace fastdiff
