// fastdiff::weights_changed: have the parameters of a network changed since their weights were packed?
//
// One row of `state` (int64) per tensor: its address, checksums of kSets sets of kSamples words spread over
// it, and checksums of kParts stretches of its bytes. A call compares the address, one set and one stretch of
// every tensor, so that a dense edit is seen at once and a sparse one within kParts calls, whatever wrote it.
// The words of all sets at every call cost a cache miss each, together more than the stretches.
#include <cstring>
#include <vector>

#include "tensors.h"

namespace fastdiff {
namespace {

constexpr int64_t kSamples = 4, kSets = 4, kParts = 32, kRow = 1 + kSets + kParts;
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

int64_t* rows_of_state(const Tensor& state, size_t tensors) {
  check_dense(state, "state", ScalarType::Long);
  STD_TORCH_CHECK(state.dim() == 2 && state.size(0) == static_cast<int64_t>(tensors) && state.size(1) == kRow,
                  "weights_changed: state must be (tensors, ", kRow, ")");
  return static_cast<int64_t*>(state.mutable_data_ptr());
}

std::vector<Bytes> bytes_of_all(const std::vector<Tensor>& tensors) {
  std::vector<Bytes> bytes;
  bytes.reserve(tensors.size());
  for (const Tensor& t : tensors) {
    STD_TORCH_CHECK(t.is_cpu(), "weights_changed: tensors must be on the CPU");
    bytes.push_back(bytes_of(t));
  }
  return bytes;
}

void note_weights(Tensor state, std::vector<Tensor> tensors) {
  const auto bytes = bytes_of_all(tensors);
  int64_t* const rows = rows_of_state(state, tensors.size());
  torch::stable::parallel_for(0, static_cast<int64_t>(bytes.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t* const row = rows + i * kRow;
      row[0] = reinterpret_cast<int64_t>(bytes[i].data);
      for (int64_t set = 0; set < kSets; ++set) row[1 + set] = static_cast<int64_t>(sampled(bytes[i], set));
      for (int64_t part = 0; part < kParts; ++part)
        row[1 + kSets + part] = static_cast<int64_t>(part_of(bytes[i], part));
    }
  });
}

bool weights_changed(Tensor state, std::vector<Tensor> tensors, int64_t turn) {
  const auto bytes = bytes_of_all(tensors);
  const int64_t* const rows = rows_of_state(state, tensors.size());
  const int64_t count = static_cast<int64_t>(bytes.size()), part = turn % kParts, set = turn % kSets;
  for (int64_t i = 0; i < count; ++i) {
    if (rows[i * kRow] != reinterpret_cast<int64_t>(bytes[i].data)) return true;
  }
  std::vector<char> differs(bytes.size(), 0);
  torch::stable::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t* const row = rows + i * kRow;
      differs[i] = row[1 + set] != static_cast<int64_t>(sampled(bytes[i], set)) ||
                   row[1 + kSets + part] != static_cast<int64_t>(part_of(bytes[i], part));
    }
  });
  return std::find(differs.begin(), differs.end(), 1) != differs.end();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastdiff, m) {
  m.def("note_weights(Tensor(a!) state, Tensor[] tensors) -> ()");
  m.def("weights_changed(Tensor state, Tensor[] tensors, int turn) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(fastdiff, CPU, m) {
  m.impl("note_weights", TORCH_BOX(&note_weights));
  m.impl("weights_changed", TORCH_BOX(&weights_changed));
}

}  // namespace fastdiff
