// attention: softmax(q k^T scale) v, see fastdiff/ops/attention.py.
//
// Queries are the lanes, so nothing is ever reduced across lanes. A tile of queries is held transposed, q^T
// (d, queries); kRows keys at a time give kRows x kVectors vectors of scores in registers, and kRows columns
// of v at a time give as many of the output, also transposed. Scores of a chunk of keys stay in the first
// cache; their maxima and sums are corrected from chunk to chunk. Keys and values are packed once per
// head.
#include "attention_tiles.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kTileQueries = kVectors * kLanes;  // of the tiles that registers hold
constexpr int kParts = kAttentionQueries / kTileQueries;

// Scores of a panel of keys: c[i] = sum_k a[k kRows + i] b[k]; `top` keeps the largest of each lane.
template <int rows>
static void multiply(const float* a, const float* b, int64_t depth, float* c, float* top) {
  Floats sum[rows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const Floats b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
      const Floats value = broadcast(a[i]);
      sum[i][0] += value * b0;
      sum[i][1] += value * b1;
    }
    a += kRows;
    b += kAttentionQueries;
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    Floats most = load(top + v * kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < rows; ++i) {
      store(c + i * kAttentionQueries + v * kLanes, sum[i][v]);
      most = larger(most, sum[i][v]);
    }
    store(top + v * kLanes, most);
  }
}

// A tile of queries and what is known about its output.
struct Tile {
  float *q, *out, *top, *sum;  // (d, queries), (e, queries), (queries), (queries)
};

// Keys of one head in panels (d, kRows), its values in panels (keys, kRows), and the tiles that walk over
// them. Columns of the values are cut into panels of nearly equal width.
struct Workspace {
  float *keys, *values, *scores;
  int64_t panels, panel_size;  // of values
  Tile tiles[kAttentionGroup];

  Workspace(const AttentionArgs& args, float* scratch)
      : panels((args.v.width + kRows - 1) / kRows), panel_size(args.v.rows * kRows + kLanes) {
    const auto take = [&scratch](int64_t floats) {
      float* const from = scratch;
      scratch += (floats + 15) / 16 * 16;
      return from;
    };
    for (Tile& tile : tiles) {
      tile.q = take(kAttentionQueries * args.q.width);
      tile.out = take(kAttentionQueries * args.v.width);
      tile.top = take(kAttentionQueries);
      tile.sum = take(kAttentionQueries);
    }
    scores = take((kAttentionChunk + kRows) * kAttentionQueries);
    keys = take((args.k.rows + kRows) * args.q.width + kLanes);
    values = scratch;
  }

  void hold(const AttentionArgs& args, int64_t head) const {
    const Matrix k(args.k, head), v(args.v, head);
    for (int64_t first = 0; first < args.k.rows; first += kRows) {
      const int64_t left = args.k.rows - first;
      pack(k, first, static_cast<int>(left < kRows ? left : kRows), 1.0f, keys + first * args.k.width, kRows);
    }
    for (int64_t first = 0; first < args.v.rows; first += kLanes) {
      for (int64_t p = 0; p < panels; ++p)
        unpack(v, first, lanes_left(args.v.rows, first), args.v.width * p / panels, kLanes,
               values + p * panel_size + first * kRows, kRows);
    }
  }
};

static void begin(const AttentionArgs& args, const Matrix& q, int64_t first, const Tile& tile) {
  for (int v = 0; v < kAttentionQueries; v += kLanes)
    pack(q, first + v, lanes_left(args.q.rows, first + v), args.scale < 0.0f ? -1.0f : 1.0f, tile.q + v,
         kAttentionQueries);
  for (int v = 0; v < kAttentionQueries; v += kLanes) {
    store(tile.top + v, broadcast(-__builtin_inff()));
    store(tile.sum + v, Floats{});
  }
}

// What a difference of scores, which carry no more of the scale than its sign, is multiplied by to be an
// exponent of 2. In front of the difference its rounding would count as often as the scores are large. Never
// 0: no scores are infinitely far apart.
static float steepness(float scale) {
  const float positive = __builtin_fabsf(scale) * kLog2E;
  return positive < 1e-30f ? 1e-30f : positive;
}

// From scores to powers; corrects what earlier chunks left for the new maxima `top`.
static void soften(const AttentionArgs& args, float* scores, int64_t keys, const float* top, const Tile& tile,
                   bool opens) {
  const float slope = steepness(args.scale);
  for (int v = 0; v < kTileQueries; v += kLanes) {
    const Floats most = load(top + v), before = load(tile.top + v);
    Floats sums[2] = {};
    float* p = scores + v;
    int64_t i = 0;
    for (; i + 2 <= keys; i += 2, p += 2 * kAttentionQueries) {
      const Floats a = power_of_two((load(p) - most) * slope);
      const Floats b = power_of_two((load(p + kAttentionQueries) - most) * slope);
      store(p, a);
      store(p + kAttentionQueries, b);
      sums[0] += a;
      sums[1] += b;
    }
    if (i < keys) {
      const Floats a = power_of_two((load(p) - most) * slope);
      store(p, a);
      sums[0] += a;
    }
    const Floats factor = power_of_two((before - most) * slope);
    store(tile.sum + v, load(tile.sum + v) * factor + (sums[0] + sums[1]));
    store(tile.top + v, most);
    if (opens) continue;
    bool same = true;
    for (int lane = 0; lane < kLanes; ++lane) same &= factor[lane] == 1.0f;
    if (same) continue;
    for (int64_t d = 0; d < args.v.width; ++d) {
      float* const out = tile.out + d * kAttentionQueries + v;
      store(out, load(out) * factor);
    }
  }
}

// One tile against `count` keys from `first` on, a whole number of panels or what is left.
static void walk(const AttentionArgs& args, const Workspace& work, int64_t first, int64_t count,
                 const Tile& whole) {
  for (int part = 0; part < kParts; ++part) {
    const int at = part * kTileQueries;
    const Tile tile{whole.q + at, whole.out + at, whole.top + at, whole.sum + at};
    alignas(64) float top[kTileQueries];
    for (int v = 0; v < kTileQueries; v += kLanes) store(top + v, load(tile.top + v));
    for (int64_t key = 0; key < count; key += kRows) {
      const int64_t left = count - key;
      with_number<kRows>(static_cast<int>(left < kRows ? left : kRows), [&](auto rows) {
        multiply<decltype(rows)::value>(work.keys + (first + key) * args.k.width, tile.q, args.k.width,
                                        work.scores + key * kAttentionQueries, top);
      });
    }
    soften(args, work.scores, count, top, tile, first == 0);
    for (int64_t p = 0; p < work.panels; ++p) {
      const int64_t d = args.v.width * p / work.panels, end = args.v.width * (p + 1) / work.panels;
      const float* const values = work.values + p * work.panel_size + first * kRows;
      with_number<kRows>(static_cast<int>(end - d), [&](auto rows) {
        const auto product =
            first == 0 ? add_product<decltype(rows)::value, false> : add_product<decltype(rows)::value, true>;
        product(values, kRows, work.scores, count, tile.out + d * kAttentionQueries);
      });
    }
  }
}

// Divides by the sums, turns the tile back and writes its rows.
template <class T>
static void write(const AttentionArgs& args, int64_t head, int64_t first, const Tile& tile) {
  const int64_t width = args.v.width, stride = args.out.row_stride;
  typename T::Raw* const out = static_cast<typename T::Raw*>(args.out_data) + args.out.offset(head);
  for (int v = 0; v < kAttentionQueries; v += kLanes) {
    const int count = lanes_left(args.q.rows, first + v);
    const Floats sum = load(tile.sum + v), reciprocal = 1.0f / sum;
    for (int64_t d = 0; d < width; d += kLanes) {
      const int n = lanes_left(width, d);
      Floats lines[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        lines[i] = i < n ? load(tile.out + (d + i) * kAttentionQueries + v) * reciprocal : Floats{};
      transpose(lines);
      for (int i = 0; i < count; ++i) {
        typename T::Raw* const row = out + (first + v + i) * stride + d;
        if (n == kLanes)
          T::store_all(row, lines[i]);
        else
          T::store_some(row, lines[i], n);
      }
    }
    for (int i = 0; args.log_sums && i < count; ++i)
      args.log_sums[head * args.q.rows + first + v + i] =
          tile.top[v + i] * __builtin_fabsf(args.scale) + __builtin_logf(tile.sum[v + i]);
  }
}

// Units [begin_unit, end_unit): tiles of queries, those of one head after each other.
void attention(const AttentionArgs& args, float* scratch, int64_t begin_unit, int64_t end_unit) {
  const int64_t per_head = (args.q.rows + kAttentionQueries - 1) / kAttentionQueries;
  const int64_t panels = (args.k.rows + kRows - 1) / kRows;
  const int64_t chunks = (args.k.rows + kAttentionChunk - 1) / kAttentionChunk;
  Workspace work(args, scratch);
  int64_t held = -1;
  for (int64_t unit = begin_unit; unit < end_unit;) {
    const int64_t head = unit / per_head, tile = unit % per_head;
    int64_t together = per_head - tile;
    if (together > end_unit - unit) together = end_unit - unit;
    if (together > kAttentionGroup) together = kAttentionGroup;
    if (held != head) work.hold(args, head);
    held = head;
    const Matrix q(args.q, head);
    for (int64_t i = 0; i < together; ++i) begin(args, q, (tile + i) * kAttentionQueries, work.tiles[i]);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = panels * chunk / chunks * kRows;
      int64_t end = panels * (chunk + 1) / chunks * kRows;
      if (end > args.k.rows) end = args.k.rows;
      for (int64_t i = 0; i < together; ++i) walk(args, work, first, end - first, work.tiles[i]);
    }
    for (int64_t i = 0; i < together; ++i) {
      with_element(args.out.element, [&](auto element) {
        write<decltype(element)>(args, head, (tile + i) * kAttentionQueries, work.tiles[i]);
      });
    }
    unit += together;
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
