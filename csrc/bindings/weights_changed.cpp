// fastdiff::weights_changed: have the parameters of a network changed since their weights were packed?
//
// `state` (int64) has a column per tensor: its address, the bytes that it reaches over, checksums of kSets
// sets of kSamples words spread over it, and checksums of kParts stretches of its bytes. A call compares one
// set and one stretch of every tensor, so that a dense edit is seen at once and a sparse one within kParts
// calls, whatever wrote it. The words of all sets at every call cost a cache miss each, together more than
// the stretches; so does asking torch for the sizes of three hundred tensors.
#include <cstring>
#include <vector>

#include "tensors.h"

namespace fastdiff {
namespace {

constexpr int64_t kSamples = 4, kSets = 4, kParts = 32, kRows = 2 + kSets + kParts;
constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;

struct Bytes {
  const unsigned char* data;
  int64_t size;
};

Bytes bytes_of(const Tensor& t) {
  int64_t reach = t.numel() == 0 ? 0 : 1;
  for (int64_t d = 0; reach > 0 && d < t.dim(); ++d) reach += (t.size(d) - 1) * t.stride(d);
  return {static_cast<const unsigned char*>(t.const_data_ptr()), reach * t.element_size()};
}

uint64_t word_at(const unsigned char* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

// Sums of words and of their running sums in eight lanes: a change of any one word changes the first.
uint64_t checksum(const unsigned char* data, int64_t size) {
  uint64_t first[8] = {}, second[8] = {};
  int64_t at = 0;
  for (; at + 64 <= size; at += 64) {
    for (int lane = 0; lane < 8; ++lane) {
      first[lane] += word_at(data + at + 8 * lane);
      second[lane] += first[lane];
    }
  }
  uint64_t hash = 0;
  for (int lane = 0; lane < 8; ++lane) hash = (hash ^ first[lane]) * kOdd + second[lane];
  for (; at < size; ++at) hash = hash * kOdd + data[at] + 1;
  return hash;
}

// Words set, set + kSets, set + 2 kSets, ... of those that are spread over the bytes; all bytes of a small
// tensor.
uint64_t sampled(const Bytes& bytes, int64_t set) {
  if (bytes.size <= 8 * kSamples * kSets) return checksum(bytes.data, bytes.size);
  uint64_t hash = 0;
  for (int64_t k = set; k < kSamples * kSets; k += kSets) {
    const int64_t at = (bytes.size - 8) / (kSamples * kSets - 1) * k;
    hash = (hash ^ word_at(bytes.data + at)) * kOdd;
  }
  return hash;
}

uint64_t part_of(const Bytes& bytes, int64_t part) {
  const int64_t begin = bytes.size * part / kParts, end = bytes.size * (part + 1) / kParts;
  return checksum(bytes.data + begin, end - begin);
}

struct State {
  int64_t *addresses, *sizes, *sums, tensors;

  explicit State(const Tensor& state) {
    check_dense(state, "state", ScalarType::Long);
    STD_TORCH_CHECK(state.dim() == 2 && state.size(0) == kRows, "weights_changed: state must be (", kRows,
                    ", tensors)");
    tensors = state.size(1);
    addresses = static_cast<int64_t*>(state.mutable_data_ptr());
    sizes = addresses + tensors;
    sums = sizes + tensors;
  }

  Bytes bytes(int64_t i) const { return {reinterpret_cast<const unsigned char*>(addresses[i]), sizes[i]}; }
  int64_t& of_set(int64_t set, int64_t i) const { return sums[set * tensors + i]; }
  int64_t& of_part(int64_t part, int64_t i) const { return of_set(kSets + part, i); }
};

void note_weights(Tensor noted, std::vector<Tensor> weights) {
  const State state(noted);
  STD_TORCH_CHECK(state.tensors == static_cast<int64_t>(weights.size()),
                  "note_weights: state must have a column per tensor");
  for (int64_t i = 0; i < state.tensors; ++i) {
    STD_TORCH_CHECK(weights[i].is_cpu(), "note_weights: tensors must be on the CPU");
    const Bytes bytes = bytes_of(weights[i]);
    state.addresses[i] = reinterpret_cast<int64_t>(bytes.data);
    state.sizes[i] = bytes.size;
  }
  torch::stable::parallel_for(0, state.tensors, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Bytes bytes = state.bytes(i);
      for (int64_t set = 0; set < kSets; ++set)
        state.of_set(set, i) = static_cast<int64_t>(sampled(bytes, set));
      for (int64_t part = 0; part < kParts; ++part)
        state.of_part(part, i) = static_cast<int64_t>(part_of(bytes, part));
    }
  });
}

// The tensors must be those that were noted, alive and of the sizes that they had.
bool weights_changed(Tensor noted, int64_t turn) {
  const State state(noted);
  STD_TORCH_CHECK(turn >= 0, "weights_changed: turn must not be negative, got ", turn);
  const int64_t part = turn % kParts, set = turn % kSets;
  std::vector<char> differs(static_cast<size_t>(state.tensors), 0);
  torch::stable::parallel_for(0, state.tensors, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Bytes bytes = state.bytes(i);
      differs[i] = state.of_set(set, i) != static_cast<int64_t>(sampled(bytes, set)) ||
                   state.of_part(part, i) != static_cast<int64_t>(part_of(bytes, part));
    }
  });
  return std::find(differs.begin(), differs.end(), 1) != differs.end();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("note_weights(Tensor(a!) state, Tensor[] weights) -> ()");
  m.def("weights_changed(Tensor state, int turn) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("note_weights", TORCH_BOX(&note_weights));
  m.impl("weights_changed", TORCH_BOX(&weights_changed));
}

}  // namespace fastdiff
