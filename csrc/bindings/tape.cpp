// fastdiff::tape_*: tapes by their numbers, see fastdiff/engine/tape.py.
#include "tape.h"

#include <map>
#include <memory>
#include <mutex>

#include "tensors.h"

namespace fastdiff {
namespace {

struct Tapes {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<Tape>> by_number;
  int64_t last = 0;

  std::shared_ptr<Tape> find(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = by_number.find(number);
    STD_TORCH_CHECK(found != by_number.end(), "tape: there is no tape ", number);
    return found->second;
  }
};

Tapes& tapes() {
  static Tapes* const all = new Tapes;  // stays: at the end of a process tensors may outlive what frees them
  return *all;
}

int64_t tape_new() {
  const std::lock_guard<std::mutex> lock(tapes().mutex);
  tapes().by_number[++tapes().last] = std::make_shared<Tape>();
  return tapes().last;
}

void tape_delete(int64_t number) {
  std::shared_ptr<Tape> last;  // its tensors go when others may look for tapes again
  const std::lock_guard<std::mutex> lock(tapes().mutex);
  const auto found = tapes().by_number.find(number);
  if (found == tapes().by_number.end()) return;
  last = std::move(found->second);
  tapes().by_number.erase(found);
}

// From here on this thread's calls are written to a tape; 0: they are computed again.
void tape_open(int64_t number) {
  open_tape = number == 0 ? nullptr : tapes().find(number);
}

int64_t tape_size(int64_t number) {
  const std::shared_ptr<Tape> tape = tapes().find(number);
  const std::lock_guard<std::mutex> turn(tape->turn);
  return static_cast<int64_t>(tape->calls.size());
}

// Computes calls begin ... end - 1 in the memory of the tensors that they were written with.
void tape_run(int64_t number, int64_t begin, int64_t end) {
  const std::shared_ptr<Tape> tape = tapes().find(number);
  const std::lock_guard<std::mutex> turn(tape->turn);
  STD_TORCH_CHECK(0 <= begin && begin <= end && end <= static_cast<int64_t>(tape->calls.size()),
                  "tape: the calls must be among its ", tape->calls.size());
  for (int64_t i = begin; i < end; ++i) {
    const WrittenCall& call = tape->calls[i];
    for (const auto& [tensor, data] : call.held)
      STD_TORCH_CHECK(tensor.const_data_ptr() == data,
                      "tape: tensors must lie where they lay when the calls were written");
    call.compute();
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("tape_new() -> int");
  m.def("tape_delete(int tape) -> ()");
  m.def("tape_open(int tape) -> ()");
  m.def("tape_size(int tape) -> int");
  m.def("tape_run(int tape, int begin, int end) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CompositeExplicitAutograd, m) {
  m.impl("tape_new", TORCH_BOX(&tape_new));
  m.impl("tape_delete", TORCH_BOX(&tape_delete));
  m.impl("tape_open", TORCH_BOX(&tape_open));
  m.impl("tape_size", TORCH_BOX(&tape_size));
  m.impl("tape_run", TORCH_BOX(&tape_run));
}

}  // namespace fastdiff
