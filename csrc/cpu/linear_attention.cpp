// linear_attention: softmax(q over d) times the context softmax(k over n)^T v, see
// fastdiff/ops/linear_attention.py.
//
// First the context of each head, a strip of keys at a time: maxima and sums of the columns of k are
// corrected from strip to strip, as is the context. Then the queries, kLanes of them at a time as lanes, so
// that their softmax is not reduced across lanes either.
#include "attention_tiles.h"
#include "entries.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kStrip = 64;  // keys

// One walk over the keys of a head; the context lies as (blocks of kPitch columns of v, D, kPitch).
struct Context {
  const LinearAttentionArgs& args;
  int64_t width, pitch, blocks;
  float *powers, *values, *top, *sums, *factors, *out;

  Context(const LinearAttentionArgs& a, float* scratch, float* context)
      : args(a),
        width(a.k.width),
        pitch(linear_attention_pitch(a.k.width)),
        blocks(linear_attention_blocks(a)),
        powers(scratch),
        values(powers + kStrip * pitch),
        top(values + kStrip * kPitch),
        sums(top + pitch),
        factors(sums + pitch),
        out(context) {
    for (int64_t d = 0; d < pitch; d += kLanes) {
      store(top + d, broadcast(-__builtin_inff()));
      store(sums + d, Floats{});
    }
    for (int64_t i = 0; i < blocks * width * kPitch; i += kLanes) store(out + i, Floats{});
  }

  // From keys to powers relative to the new maxima, and what that does to earlier sums.
  void soften(int count) {
    for (int64_t d = 0; d < pitch; d += kLanes) {
      const Floats before = load(top + d);
      Floats most = before, sum{};
      for (int i = 0; i < count; ++i) most = larger(load(powers + i * pitch + d), most);
      for (int i = 0; i < count; ++i) {
        float* const p = powers + i * pitch + d;
        const Floats power = power_of_two((load(p) - most) * kLog2E);
        store(p, power);
        sum += power;
      }
      const Floats factor = power_of_two((before - most) * kLog2E);
      store(sums + d, load(sums + d) * factor + sum);
      store(factors + d, factor);
      store(top + d, most);
    }
  }

  void scale(const float* by) {
    for (int64_t d = 0; d < width; ++d) {
      if (by[d] == 1.0f) continue;
      for (int64_t block = 0; block < blocks; ++block) {
        float* const row = out + (block * width + d) * kPitch;
        for (int e = 0; e < kPitch; e += kLanes) store(row + e, load(row + e) * by[d]);
      }
    }
  }

  void add_all(const Matrix& k, const Matrix& v) {
    for (int64_t first = 0; first < k.of.rows; first += kStrip) {
      const int64_t left = k.of.rows - first;
      add(k, v, first, static_cast<int>(left < kStrip ? left : kStrip));
    }
  }

  void add(const Matrix& k, const Matrix& v, int64_t first, int count) {
    unpack(k, first, count, 0, pitch, powers, pitch);
    soften(count);
    scale(factors);
    for (int64_t block = 0; block < blocks; ++block) {
      unpack(v, first, count, block * kPitch, kPitch, values, kPitch);
      float* const context = out + block * width * kPitch;
      for (int64_t d = 0; d < width; d += kRows) {
        const int rows = static_cast<int>(width - d < kRows ? width - d : kRows);
        with_number<kRows>(rows, [&](auto number) {
          for (int part = 0; part < kPitch; part += kVectors * kLanes)
            add_product<decltype(number)::value>(powers + d, pitch, values + part, count,
                                                 context + d * kPitch + part);
        });
      }
    }
  }

  void finish() {
    for (int64_t d = 0; d < pitch; d += kLanes) store(factors + d, args.scale / load(sums + d));
    scale(factors);
  }
};

// The contexts of the heads [begin, end).
void linear_attention_context(const LinearAttentionArgs& args, float* scratch, int64_t begin, int64_t end) {
  for (int64_t head = begin; head < end; ++head) {
    Context context(args, scratch, args.contexts + head * linear_attention_context_size(args));
    if (args.memory_k.rows > 0) context.add_all(Matrix(args.memory_k, head), Matrix(args.memory_v, head));
    context.add_all(Matrix(args.k, head), Matrix(args.v, head));
    context.finish();
  }
}

// softmax over the D columns of kLanes queries that are lanes.
static void soften_queries(float* q, int64_t width) {
  Floats most = load(q), sum{};
  for (int64_t d = 1; d < width; ++d) most = larger(load(q + d * kLanes), most);
  for (int64_t d = 0; d < width; ++d) {
    const Floats power = power_of_two((load(q + d * kLanes) - most) * kLog2E);
    store(q + d * kLanes, power);
    sum += power;
  }
  const Floats reciprocal = 1.0f / sum;
  for (int64_t d = 0; d < width; ++d) store(q + d * kLanes, load(q + d * kLanes) * reciprocal);
}

template <class T>
static void apply(const LinearAttentionArgs& args, float* scratch, int64_t head, int64_t first, int count) {
  constexpr int rows = kLanes / 2;
  const int64_t width = args.q.width;
  float *const q = scratch, *const product = scratch + width * kLanes;
  pack(Matrix(args.q, head), first, count, 1.0f, q, kLanes);
  soften_queries(q, width);
  typename T::Raw* const out = static_cast<typename T::Raw*>(args.out_data) + args.out.offset(head);
  const float* context = args.contexts + head * linear_attention_context_size(args);
  for (int64_t e = 0; e < args.v.width; e += kPitch, context += width * kPitch) {
    for (int i = 0; i < kLanes * kPitch; i += kLanes) store(product + i, Floats{});
    for (int part = 0; part < kPitch; part += kVectors * kLanes) {
      for (int i = 0; i < kLanes; i += rows)
        add_product<rows>(q + i, kLanes, context + part, width, product + i * kPitch + part);
    }
    const int64_t columns = args.v.width - e < kPitch ? args.v.width - e : kPitch;
    for (int i = 0; i < count; ++i) {
      typename T::Raw* const row = out + (first + i) * args.out.row_stride + e;
      each_vector(columns, [&](int64_t c, auto access) {
        access.template put<T>(row + c, load(product + i * kPitch + c));
      });
    }
  }
}

// Units [begin, end): stretches of queries of one head.
void linear_attention(const LinearAttentionArgs& args, float* scratch, int64_t begin, int64_t end) {
  const int64_t per_head = (args.q.rows + kLinearQueries - 1) / kLinearQueries;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t head = unit / per_head, start = unit % per_head * kLinearQueries;
    const int64_t stop = start + kLinearQueries < args.q.rows ? start + kLinearQueries : args.q.rows;
    for (int64_t first = start; first < stop; first += kLanes) {
      with_element(args.out.element, [&](auto element) {
        apply<decltype(element)>(args, scratch, head, first, lanes_left(stop, first));
      });
    }
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
