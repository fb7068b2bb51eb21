// A tape: calls of kernels with their arguments prepared, written down once and run again without torch
// between.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace fastdiff {

using Tape = std::vector<std::function<void()>>;

// The tape that calls of this thread are written to; null while they are computed. It stays until it is
// closed, whoever deletes its number meanwhile.
inline thread_local std::shared_ptr<Tape> open_tape;

// Computes a call, which holds copies of all it needs but the memory of its tensors, or writes it to the open
// tape.
template <class Call>
void compute_or_write(Call call) {
  if (open_tape)
    open_tape->emplace_back(std::move(call));
  else
    call();
}

}  // namespace fastdiff
