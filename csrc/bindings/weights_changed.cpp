// fastdiff::weights_changed: have the parameters of a network changed since their weights were packed?
//
// `state` (int64) has a column per tensor: its address, the bytes that it reaches over, how many cache lines
// the tensors before it have, a seal of these by which a state that was not written here is told from one
// that was, and checksums of kSets sets of kSamples lines spread over it. `shares` has the checksums of all
// bytes of all tensors, one behind the other, cut into kTurns shares of kPieces pieces. A call compares one
// set of every tensor and one share, so that a dense edit is seen at once and a sparse one within kTurns
// calls, whatever wrote it. What it reads is cold: every sampled line costs a cache miss, so all are asked
// for before the first is read, and a share is a few long stretches, where one of every tensor would be
// hundreds of short ones.
#include <atomic>
#include <cstring>
#include <random>
#include <vector>

#include "tensors.h"

namespace fastdiff {
namespace {

constexpr int64_t kSamples = 4, kSets = 4, kRows = 4 + kSets, kTurns = 32, kPieces = 64;
constexpr int64_t kLine = 64, kAhead = 2048;
constexpr int64_t kThreadBytes = 32768;  // fewer bytes do not pay for waking a thread
constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;

struct Bytes {
  const unsigned char* data;
  int64_t size;
};

Bytes bytes_of(const Tensor& t) {
  return {static_cast<const unsigned char*>(t.const_data_ptr()),
          reach_of(t) * static_cast<int64_t>(t.element_size())};
}

uint64_t word_at(const unsigned char* data) {
  uint64_t word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

// Sums of words and of their running sums in eight lanes: a change of any one word changes the first. Both
// halves are read at once and asked for half a page ahead, since the processor itself asks for nothing in the
// next page.
uint64_t checksum(const Bytes& bytes) {
  const auto [data, size] = bytes;
  uint64_t first[8] = {}, second[8] = {};
  const auto add = [&](const unsigned char* line) {
    for (int lane = 0; lane < 8; ++lane) {
      first[lane] += word_at(line + 8 * lane);
      second[lane] += first[lane];
    }
  };
  const int64_t half = size / 2 / kLine * kLine;
  int64_t at = 0;
  for (; at < half; at += kLine) {
    __builtin_prefetch(data + at + kAhead);
    __builtin_prefetch(data + half + at + kAhead);
    add(data + at);
    add(data + half + at);
  }
  for (at = 2 * half; at + kLine <= size; at += kLine) add(data + at);
  uint64_t hash = 0;
  for (int lane = 0; lane < 8; ++lane) hash = (hash ^ first[lane]) * kOdd + second[lane];
  for (; at < size; ++at) hash = hash * kOdd + data[at] + 1;
  return hash;
}

struct State {
  int64_t *addresses, *sizes, *begins, *seals, *sums, *pieces, tensors;

  State(const Tensor& state, const Tensor& shares) {
    check_dense(state, "state", ScalarType::Long);
    check_dense(shares, "shares", ScalarType::Long);
    STD_TORCH_CHECK(state.dim() == 2 && state.size(0) == kRows, "weights_changed: state must be (", kRows,
                    ", tensors)");
    STD_TORCH_CHECK(shares.dim() == 2 && shares.size(0) == kTurns && shares.size(1) == kPieces,
                    "weights_changed: shares must be (", kTurns, ", ", kPieces, ")");
    tensors = state.size(1);
    addresses = static_cast<int64_t*>(state.mutable_data_ptr());
    sizes = addresses + tensors;
    begins = sizes + tensors;
    seals = begins + tensors;
    sums = seals + tensors;
    pieces = static_cast<int64_t*>(shares.mutable_data_ptr());
  }

  // Of one process: addresses of another one are no addresses.
  int64_t seal(int64_t i) const {
    static const uint64_t key = uint64_t{std::random_device{}()} << 32 | std::random_device{}();
    uint64_t hash = key;
    for (const int64_t part : {addresses[i], sizes[i], begins[i], i}) {
      hash = (hash ^ static_cast<uint64_t>(part)) * kOdd;
      hash ^= hash >> 29;
    }
    return static_cast<int64_t>(hash);
  }

  Bytes bytes(int64_t i) const { return {reinterpret_cast<const unsigned char*>(addresses[i]), sizes[i]}; }
  int64_t lines(int64_t i) const { return (sizes[i] + kLine - 1) / kLine; }
  int64_t lines() const { return tensors == 0 ? 0 : begins[tensors - 1] + lines(tensors - 1); }
  int64_t& sum(int64_t set, int64_t i) const { return sums[set * tensors + i]; }

  // Calls f with the bytes of the lines set, set + kSets, set + 2 kSets, ... of those spread over a tensor;
  // with all of a small one.
  template <class F>
  void for_samples(int64_t set, int64_t i, const F& f) const {
    const Bytes all = bytes(i);
    if (all.size <= kSamples * kLine) return f(all);
    for (int64_t k = set; k < kSamples * kSets; k += kSets) {
      const int64_t at = (lines(i) - 1) * k / (kSamples * kSets - 1) * kLine;
      f(Bytes{all.data + at, std::min(kLine, all.size - at)});
    }
  }

  void ask_for_samples(int64_t set, int64_t i) const {
    for_samples(set, i, [](const Bytes& part) {
      for (int64_t at = 0; at < part.size; at += kLine) __builtin_prefetch(part.data + at);
    });
  }

  int64_t sampled(int64_t set, int64_t i) const {
    uint64_t hash = 0;
    for_samples(set, i, [&](const Bytes& part) { hash = (hash ^ checksum(part)) * kOdd; });
    return static_cast<int64_t>(hash);
  }

  // Of piece p of kTurns * kPieces.
  int64_t piece(int64_t p) const {
    const int64_t all = lines(), end = all * (p + 1) / (kTurns * kPieces);
    int64_t line = all * p / (kTurns * kPieces);
    uint64_t hash = 0;
    int64_t i = std::upper_bound(begins, begins + tensors, line) - begins - 1;
    for (; line < end; ++i) {
      const int64_t stop = std::min(end, begins[i] + lines(i)), at = (line - begins[i]) * kLine;
      const int64_t size = std::min((stop - begins[i]) * kLine, sizes[i]) - at;
      hash = (hash ^ checksum({bytes(i).data + at, size})) * kOdd;
      line = stop;
    }
    return static_cast<int64_t>(hash);
  }

  int64_t grain() const {
    const int64_t bytes = lines() * kLine / (kTurns * kPieces);
    return std::max<int64_t>(1, kThreadBytes / std::max<int64_t>(1, bytes));
  }
};

void note_weights(Tensor noted, Tensor shares, std::vector<Tensor> weights) {
  const State state(noted, shares);
  STD_TORCH_CHECK(state.tensors == static_cast<int64_t>(weights.size()),
                  "note_weights: state must have a column per tensor");
  check_apart("note_weights", {Extent(noted), Extent(shares)}, {});
  int64_t lines = 0;
  for (int64_t i = 0; i < state.tensors; ++i) {
    STD_TORCH_CHECK(is_here(weights[i]), "note_weights: tensors must be on the CPU");
    const Bytes bytes = bytes_of(weights[i]);
    state.addresses[i] = reinterpret_cast<int64_t>(bytes.data);
    state.sizes[i] = bytes.size;
    state.begins[i] = lines;
    state.seals[i] = state.seal(i);
    lines += state.lines(i);
  }
  for (int64_t i = 0; i < state.tensors; ++i) {
    for (int64_t set = 0; set < kSets; ++set) state.sum(set, i) = state.sampled(set, i);
  }
  torch::stable::parallel_for(0, kTurns * kPieces, state.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) state.pieces[p] = state.piece(p);
  });
}

// The tensors must be those that were noted, alive and of the sizes that they had.
bool weights_changed(Tensor noted, Tensor shares, int64_t turn) {
  const State state(noted, shares);
  STD_TORCH_CHECK(turn >= 0, "weights_changed: turn must not be negative, got ", turn);
  for (int64_t i = 0; i < state.tensors; ++i)
    STD_TORCH_CHECK(state.seals[i] == state.seal(i),
                    "weights_changed: state must be what note_weights wrote");
  const int64_t set = turn % kSets, first = turn % kTurns * kPieces;
  std::atomic<bool> differs{false};
  // A thread takes as large a part of the tensors as of the pieces.
  torch::stable::parallel_for(0, kPieces, state.grain(), [&](int64_t begin, int64_t end) {
    const int64_t from = state.tensors * begin / kPieces, to = state.tensors * end / kPieces;
    bool same = true;
    for (int64_t i = from; i < to; ++i) state.ask_for_samples(set, i);
    for (int64_t p = first + begin; p < first + end; ++p) same = same && state.pieces[p] == state.piece(p);
    for (int64_t i = from; i < to; ++i) same = same && state.sum(set, i) == state.sampled(set, i);
    if (!same) differs = true;
  });
  return differs;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("note_weights(Tensor(a!) state, Tensor(b!) shares, Tensor[] weights) -> ()");
  m.def("weights_changed(Tensor state, Tensor shares, int turn) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("note_weights", TORCH_BOX(&note_weights));
  m.impl("weights_changed", TORCH_BOX(&weights_changed));
}

}  // namespace fastdiff
