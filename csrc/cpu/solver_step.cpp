// solver_step: one row of a step table in one pass over the state, see fastdiff/ops/row.py.
#include "entries.h"
#include "noise_tile.h"
#include "read_tile.h"

namespace fastdiff::FASTDIFF_ISA {

// A coefficient and the tensor it multiplies; a term whose coefficient is 0 is not read.
struct Term {
  float factor = 0.0f;
  const float* data = nullptr;

  Term(float f, const float* p) : factor(f), data(f == 0.0f ? nullptr : p) {}
};

struct Coefficients {
  float gain, g_c, g_u, u_x, u_m, u_c, lo, hi, rho, p_x, p_0, p_m, p_u, p_c, b, a, q_m, q_u, d;

  Coefficients(const float* row, const float* sample)
      : gain(sample ? sample[k_sample_gain] : row[k_gain]),
        g_c(sample ? sample[k_sample_g_c] : row[k_g_c]),
        g_u(sample ? sample[k_sample_g_u] : row[k_g_u]),
        u_x(row[k_u_x]), u_m(row[k_u_m]), u_c(row[k_u_c]),
        lo(sample ? sample[k_sample_lo] : row[k_lo]),
        hi(sample ? sample[k_sample_hi] : row[k_hi]),
        rho(sample ? sample[k_sample_rho] : row[k_rho]),
        p_x(row[k_p_x]), p_0(row[k_p_0]), p_m(row[k_p_m]), p_u(row[k_p_u]), p_c(row[k_p_c]),
        b(row[k_b]), a(row[k_a]), q_m(row[k_q_m]), q_u(row[k_q_u]), d(row[k_d]) {}

  bool uses_m() const { return u_m != 0 || p_m != 0 || q_m != 0; }
  bool clamps() const { return lo != -__builtin_inff() || hi != __builtin_inff(); }
};

// Where the pushed values of one tile go; null where nothing is pushed.
struct Pushes {
  float* x = nullptr;
  float* x0 = nullptr;
  float* eps = nullptr;
  float* x0_out = nullptr;

  // A value that two pushes name is stored by the second visit in `copy`.
  float* copy_from = nullptr;
  float* copy_to = nullptr;

  void add(int what, float* to) {
    if (what == k_push_none) return;
    float*& slot = what == k_push_x ? x : what == k_push_x0 ? x0 : eps;
    if (slot) {
      copy_from = slot;
      copy_to = to;
    } else {
      slot = to;
    }
  }
};

// One tile with every tensor as dense float32.
struct TileStep {
  Coefficients c;
  const float *x, *m, *m_u, *cond, *noise;
  Term history[kHistories];
  Pushes push;
  float* out;
  int count;

  template <class Load, class Store>
  inline __attribute__((always_inline)) void at(int i, const Load& load, const Store& store) const {
    Floats state = load(x + i), guided{}, extra{}, image{};
    if (c.gain != 1.0f) state = c.gain == 0.0f ? Floats{} : c.gain * state;
    if (m_u) extra = load(m_u + i);
    if (cond) image = load(cond + i);
    if (m && c.g_c != 0) guided = c.g_c * load(m + i);
    if (m_u && c.g_u != 0) guided += c.g_u * extra;

    Floats x0{};
    if (c.u_x != 0) x0 = c.u_x * state;
    if (c.u_m != 0) x0 += c.u_m * guided;
    if (c.u_c != 0) x0 += c.u_c * image;
    if (c.clamps()) x0 = clamp(x0, broadcast(c.lo), broadcast(c.hi));
    if (c.rho != 1.0f) x0 *= c.rho;

    Floats next{};
    if (c.b != 0) next = c.b * state;
    if (c.a != 0) next += c.a * x0;
    if (c.q_m != 0) next += c.q_m * guided;
    if (c.q_u != 0) next += c.q_u * extra;
    if (c.d != 0) next += c.d * image;
    for (const Term& term : history) {
      if (term.data) next += term.factor * load(term.data + i);
    }
    if (noise) next += load(noise + i);
    if (push.x) store(push.x + i, state);
    if (push.x0) store(push.x0 + i, x0);
    if (push.x0_out) store(push.x0_out + i, x0);
    if (push.eps) store(push.eps + i, epsilon(state, x0, guided, extra, image));
    store(out + i, next);
  }

  inline Floats epsilon(Floats state, Floats x0, Floats guided, Floats extra, Floats image) const {
    Floats eps{};
    if (c.p_x != 0) eps += c.p_x * state;
    if (c.p_0 != 0) eps += c.p_0 * x0;
    if (c.p_m != 0) eps += c.p_m * guided;
    if (c.p_u != 0) eps += c.p_u * extra;
    if (c.p_c != 0) eps += c.p_c * image;
    return eps;
  }

  void run() const {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      at(i, [](const float* p) { return load(p); }, [](float* p, Floats v) { store(p, v); });
    }
    if (i < count) {
      const int left = count - i;
      at(i, [left](const float* p) { return load_first(p, left); },
         [left](float* p, Floats v) { store_first(p, v, left); });
    }
    if (push.copy_to) __builtin_memcpy(push.copy_to, push.copy_from, 4 * static_cast<unsigned>(count));
  }
};

static void scale_noise(const float* row, const float* v, const float* noise, int count, float* out) {
  const float s = row[k_s], l_0 = row[k_l_0], l_1 = v ? row[k_l_1] : 0.0f;
  const Floats plain = (l_0 == 0.0f && !v) ? broadcast(s) : s * exponential(broadcast(0.5f * l_0));
  for (int i = 0; i < count; i += kLanes) {
    const int n = count - i < kLanes ? count - i : kLanes;
    const Floats factor = v ? s * exponential(0.5f * (l_0 + l_1 * load_first(v + i, n))) : plain;
    store_first(out + i, factor * load_first(noise + i, n), n);
  }
}

// Scratch of one thread.
struct Buffers {
  alignas(64) float noise[kTile];
  alignas(64) float m[kTile];
  alignas(64) float m_u[kTile];
  alignas(64) float cond[kTile];
};

static const float* made_noise(const SolverStepArgs& args, const Source& given, uint32_t stream, const Tile& tile,
                               float* buffer) {
  if (given) return read_tile(given, tile, buffer);
  const uint64_t seed = static_cast<uint64_t>(args.seeds[tile.sample]);
  normal_tile({seed, static_cast<uint32_t>(args.row[k_noise_row]), stream}, tile.begin, tile.count, buffer);
  return buffer;
}

static const float* solver_noise(const SolverStepArgs& args, const Tile& tile, Buffers& buffers) {
  if (args.row[k_s] == 0.0f) return nullptr;
  const uint32_t stream = static_cast<uint32_t>(args.row[k_stream]);
  const float* noise = made_noise(args, args.noise, stream, tile, buffers.noise);
  const float* v = args.row[k_l_1] != 0.0f ? read_tile(args.v, tile, buffers.m) : nullptr;
  scale_noise(args.row, v, noise, tile.count, buffers.noise);
  return buffers.noise;
}

// out = mask * (i_y * known + i_s * noise) + (1 - mask) * out; the side whose weight is 0 is not read.
static void blend_known(const SolverStepArgs& args, const Tile& tile, Buffers& buffers, float* out) {
  const float i_y = args.row[k_i_y], i_s = args.row[k_i_s];
  const float* mask = read_tile(args.mask, tile, buffers.m);
  const float* known = i_y != 0.0f ? read_tile(args.known, tile, buffers.cond) : nullptr;
  const float* noise =
      i_s != 0.0f ? made_noise(args, args.known_noise, k_stream_known, tile, buffers.noise) : nullptr;
  for (int i = 0; i < tile.count; i += kLanes) {
    const int n = tile.count - i < kLanes ? tile.count - i : kLanes;
    const Floats weight = load_first(mask + i, n), free = load_first(out + i, n);
    Floats region{};
    if (known) region += i_y * load_first(known + i, n);
    if (noise) region += i_s * load_first(noise + i, n);
    const Floats mixed = weight * region + (1.0f - weight) * free;
    store_first(out + i, select(weight == 1.0f, region, select(weight == 0.0f, free, mixed)), n);
  }
}

static void step_tile(const SolverStepArgs& args, const Tile& tile, Buffers& buffers) {
  const float* row = args.row;
  const int64_t at = tile.sample * args.samples.count + tile.begin;
  const int64_t ring = args.samples.batch * args.samples.count;
  const Coefficients c(row, args.per_sample ? args.per_sample + tile.sample * k_per_sample_width : nullptr);
  const float* noise = solver_noise(args, tile, buffers);  // before the buffers are used for m
  const bool pair = (c.uses_m() && c.g_u != 0) || c.q_u != 0 || c.p_u != 0;
  const auto slot = [&](int which) { return args.history + static_cast<int64_t>(row[which]) * ring + at; };
  const auto past = [&](int k) { return Term(row[k_h_0 + k], row[k_h_0 + k] != 0 ? slot(k_slot_0 + k) : nullptr); };
  TileStep step{c,
                args.x + at,
                c.uses_m() && c.g_c != 0 ? read_tile(args.m, tile, buffers.m) : nullptr,
                pair ? read_tile(args.m_u, tile, buffers.m_u) : nullptr,
                c.u_c != 0 || c.p_c != 0 || c.d != 0 ? read_tile(args.cond, tile, buffers.cond) : nullptr,
                noise,
                {past(0), past(1), past(2)},
                {},
                args.out + at,
                tile.count};
  for (int k = 0; k < kPushes; ++k) {
    const int what = static_cast<int>(row[k_push_0 + 2 * k]);
    if (what != k_push_none) step.push.add(what, slot(k_push_0_slot + 2 * k));
  }
  if (args.x0_out) step.push.x0_out = args.x0_out + at;
  step.run();
  if (args.mask) blend_known(args, tile, buffers, args.out + at);
}

void solver_step(const SolverStepArgs& args, int64_t begin, int64_t end) {
  Buffers buffers;
  for (int64_t index = begin; index < end; ++index) step_tile(args, Tile(args.samples, index), buffers);
}

}  // namespace fastdiff::FASTDIFF_ISA
