// Arguments of attention; see fastdiff/ops/attention.py.
#pragma once

#include <cstdint>

#include "fastdiff/matrices.h"

namespace fastdiff {

// out = softmax(q k^T scale) v for each of q.count heads.
struct AttentionArgs {
  Matrices q, k, v, out;
  float scale = 1.0f;
  void* out_data = nullptr;
  float* log_sums = nullptr;  // (heads, q.rows): log of the sum of exp(scores), or null
};

// A unit of work is a tile of queries of one head; a thread holds the keys of one head, packed for the
// product.
constexpr int kAttentionQueries = 32;
constexpr int kAttentionGroup = 4;  // tiles that share one walk over the keys
inline int64_t attention_units(const AttentionArgs& args) {
  return args.q.count * ((args.q.rows + kAttentionQueries - 1) / kAttentionQueries);
}
constexpr int kAttentionChunk = 256;  // keys whose scores are held at a time

// Floats of scratch memory, 64-byte aligned, that one thread needs.
inline int64_t attention_scratch(const AttentionArgs& args) {
  const int64_t keys = args.k.rows + 64, tile = kAttentionQueries * (args.q.width + args.v.width + 2);
  const int64_t values = args.v.plain() ? 0 : keys * (args.v.width + 16);
  return keys * args.q.width + values + kAttentionGroup * tile + (kAttentionChunk + 64) * kAttentionQueries +
         256;
}

}  // namespace fastdiff
