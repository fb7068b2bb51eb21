// Arguments of attention and linear_attention; see their files in fastdiff/ops.
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

// A unit of work is a tile of queries of one head; a thread holds the keys and values of one head,
// packed for the products.
constexpr int kAttentionQueries = 32;
constexpr int kAttentionGroup = 4;  // tiles that share one walk over the keys
inline int64_t attention_units(const AttentionArgs& args) {
  return args.q.count * ((args.q.rows + kAttentionQueries - 1) / kAttentionQueries);
}
constexpr int kAttentionChunk = 256;  // keys whose scores are held at a time

// Floats of scratch memory, 64-byte aligned, that one thread needs.
inline int64_t attention_scratch(const AttentionArgs& args) {
  const int64_t keys = args.k.rows + 64, tile = kAttentionQueries * (args.q.width + args.v.width + 2);
  return keys * (args.q.width + args.v.width + 16) + kAttentionGroup * tile +
         (kAttentionChunk + 64) * kAttentionQueries + 256;
}

// out = softmax(q over its columns) (softmax(k over its rows)^T v) scale for each head.
struct LinearAttentionArgs {
  Matrices q, k, v, out;
  Matrices memory_k, memory_v;  // more keys and values, before those of k and v; no rows where there are none
  float scale = 1.0f;
  void* out_data = nullptr;
  float* contexts = nullptr;  // (heads, blocks, D, kAttentionQueries)
};

constexpr int64_t kLinearQueries = 256;  // of a unit of work
// Floats from row to row of packed keys, and blocks of columns of v.
inline int64_t linear_attention_pitch(int64_t width) {
  return (width + 15) / 16 * 16;
}
inline int64_t linear_attention_blocks(const LinearAttentionArgs& args) {
  return (args.v.width + kAttentionQueries - 1) / kAttentionQueries;
}
inline int64_t linear_attention_context_size(const LinearAttentionArgs& args) {
  return linear_attention_blocks(args) * args.k.width * kAttentionQueries;
}
inline int64_t linear_attention_scratch(const LinearAttentionArgs& args) {
  return 64 * (linear_attention_pitch(args.k.width) + kAttentionQueries) + 20 * args.k.width + 1024;
}

}  // namespace fastdiff
