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
        u_x(row[k_u_x]),
        u_m(row[k_u_m]),
        u_c(row[k_u_c]),
        lo(sample ? sample[k_sample_lo] : row[k_lo]),
        hi(sample ? sample[k_sample_hi] : row[k_hi]),
        rho(sample ? sample[k_sample_rho] : row[k_rho]),
        p_x(row[k_p_x]),
        p_0(row[k_p_0]),
        p_m(row[k_p_m]),
        p_u(row[k_p_u]),
        p_c(row[k_p_c]),
        b(row[k_b]),
        a(row[k_a]),
        q_m(row[k_q_m]),
        q_u(row[k_q_u]),
        d(row[k_d]) {}

  bool uses_m() const { return u_m != 0 || p_m != 0 || q_m != 0; }
  bool clamps() const { return lo != -__builtin_inff() || hi != __builtin_inff(); }
};

// Where the values of one tile go; null where nothing is wanted.
struct Pushes {
  float* x = nullptr;
  float* x0 = nullptr;
  float* eps = nullptr;
  float* x0_out = nullptr;
};

// One tile with every tensor as dense float32.
struct TileStep {
  Coefficients c;
  const float *x, *m, *m_u, *cond;
  Term noise, history[kHistories];
  Pushes push;
  float* out;
  int count;
};

// What a row does, one bit each: a bit in a register is tested for free, a coefficient against 0 is not.
enum Use : unsigned {
  use_gain = 1u << 0,
  use_m = 1u << 1,
  use_m_u = 1u << 2,
  use_g_u = 1u << 3,
  use_cond = 1u << 4,
  use_u_x = 1u << 5,
  use_u_m = 1u << 6,
  use_u_c = 1u << 7,
  use_clamp = 1u << 8,
  use_rho = 1u << 9,
  use_b = 1u << 10,
  use_a = 1u << 11,
  use_q_m = 1u << 12,
  use_q_u = 1u << 13,
  use_d = 1u << 14,
  use_noise = 1u << 15,
  use_history = 1u << 16,  // and the next two bits
  push_x = 1u << 19,
  push_x0 = 1u << 20,
  push_eps = 1u << 21,
  want_x0 = 1u << 22,
};

// The rows of most solvers: x0 from x and the network, clamped or not, a history or noise or neither.
constexpr unsigned kUsual = use_m | use_u_x | use_u_m | use_b | use_a;
constexpr unsigned kUsualMay = kUsual | use_clamp | use_noise | use_history | use_history << 1 | push_x0;
constexpr unsigned kAll = ~0u;

static unsigned uses_of(const TileStep& step) {
  const Coefficients& c = step.c;
  unsigned uses = 0;
  const auto note = [&uses](bool used, unsigned bit) { uses |= used ? bit : 0u; };
  note(c.gain != 1.0f, use_gain);
  note(step.m, use_m);
  note(step.m_u, use_m_u);
  note(step.m_u && c.g_u != 0.0f, use_g_u);
  note(step.cond, use_cond);
  note(c.u_x != 0.0f, use_u_x);
  note(c.u_m != 0.0f, use_u_m);
  note(c.u_c != 0.0f, use_u_c);
  note(c.clamps(), use_clamp);
  note(c.rho != 1.0f, use_rho);
  note(c.b != 0.0f, use_b);
  note(c.a != 0.0f, use_a);
  note(c.q_m != 0.0f, use_q_m);
  note(c.q_u != 0.0f, use_q_u);
  note(c.d != 0.0f, use_d);
  note(step.noise.data, use_noise);
  for (int k = 0; k < kHistories; ++k) note(step.history[k].data, use_history << k);
  note(step.push.x, push_x);
  note(step.push.x0, push_x0);
  note(step.push.eps, push_eps);
  note(step.push.x0_out, want_x0);
  return uses;
}

static inline Floats epsilon(const Coefficients& c, Floats state, Floats x0, Floats guided, Floats extra,
                             Floats image) {
  Floats eps{};
  if (c.p_x != 0) eps += c.p_x * state;
  if (c.p_0 != 0) eps += c.p_0 * x0;
  if (c.p_m != 0) eps += c.p_m * guided;
  if (c.p_u != 0) eps += c.p_u * extra;
  if (c.p_c != 0) eps += c.p_c * image;
  return eps;
}

// Bits of `certain` are known to be set and bits outside of `possible` to be clear, so that their tests
// vanish.
template <unsigned certain, unsigned possible>
static void run(const TileStep& step, unsigned given, int first, int end) {
  const Coefficients c = step.c;
  const Floats lo = broadcast(c.lo), hi = broadcast(c.hi);
  const float *x = step.x, *m = step.m, *m_u = step.m_u, *cond = step.cond;
  const Term noise = step.noise, past0 = step.history[0], past1 = step.history[1], past2 = step.history[2];
  const Pushes push = step.push;
  float* out = step.out;
  for_vectors(end - first, [=](int from, auto access) __attribute__((always_inline)) {
    const int i = first + from;
    const unsigned uses = (given & possible) | certain;
    Floats state = access.load_from(x + i), guided{}, extra{}, image{};
    if (uses & use_gain) state = c.gain == 0.0f ? Floats{} : c.gain * state;
    if (uses & use_m_u) extra = access.load_from(m_u + i);
    if (uses & use_cond) image = access.load_from(cond + i);
    if (uses & use_m) guided = c.g_c * access.load_from(m + i);
    if (uses & use_g_u) guided += c.g_u * extra;

    Floats x0{};
    if (uses & use_u_x) x0 = c.u_x * state;
    if (uses & use_u_m) x0 += c.u_m * guided;
    if (uses & use_u_c) x0 += c.u_c * image;
    if (uses & use_clamp) x0 = clamp(x0, lo, hi);
    if (uses & use_rho) x0 *= c.rho;

    Floats next{};
    if (uses & use_b) next = c.b * state;
    if (uses & use_a) next += c.a * x0;
    if (uses & use_q_m) next += c.q_m * guided;
    if (uses & use_q_u) next += c.q_u * extra;
    if (uses & use_d) next += c.d * image;
    if (uses & use_history) next += past0.factor * access.load_from(past0.data + i);
    if (uses & use_history << 1) next += past1.factor * access.load_from(past1.data + i);
    if (uses & use_history << 2) next += past2.factor * access.load_from(past2.data + i);
    if (uses & use_noise) next += noise.factor * access.load_from(noise.data + i);

    if (uses & push_x) access.store_to(push.x + i, state);
    if (uses & push_x0) access.store_to(push.x0 + i, x0);
    if (uses & push_eps) access.store_to(push.eps + i, epsilon(c, state, x0, guided, extra, image));
    if (uses & want_x0) access.store_to(push.x0_out + i, x0);
    access.store_to(out + i, next);
  });
}

// Scratch of one thread.
struct Buffers {
  alignas(64) float noise[kTile];
  alignas(64) float m[kTile];
  alignas(64) float m_u[kTile];
  alignas(64) float cond[kTile];
};

// Asks for what the update of a piece reads and writes while its noise is made: otherwise the step waits for
// memory after it has waited for the multiplier.
struct Ahead {
  const float *x, *m, *out;

  void operator()(int first, int n) const {
    prefetch(x + first, n);
    if (m) prefetch(m + first, n);
    prefetch(out + first, n);
  }
};

static NoiseKey noise_key(const SolverStepArgs& args, const Tile& tile, uint32_t stream) {
  const uint64_t seed = static_cast<uint64_t>(args.seeds[tile.sample]);
  return {seed, static_cast<uint32_t>(args.row[k_noise_row]), stream};
}
static uint32_t solver_stream(const SolverStepArgs& args) {
  return static_cast<uint32_t>(args.row[k_stream]);
}

static const float* made_noise(const SolverStepArgs& args, const Source& given, uint32_t stream,
                               const Tile& tile, float* buffer) {
  if (given) return read_tile(given, tile, buffer);
  normal_tile(noise_key(args, tile, stream), tile.begin, tile.count, buffer);
  return buffer;
}

// Whether the noise of a tile can be made piece by piece, each used as soon as it is there.
static bool in_pieces(const SolverStepArgs& args) {
  return args.row[k_s] != 0.0f && args.row[k_l_1] == 0.0f && !args.noise;
}

// s * exp((l_0 + l_1 v) / 2) * noise; the factor is per element only where the row reads v. Noise in pieces
// is not made yet.
static Term solver_noise(const SolverStepArgs& args, const Tile& tile, Buffers& buffers) {
  const float s = args.row[k_s], l_0 = args.row[k_l_0], l_1 = args.row[k_l_1];
  if (s == 0.0f) return Term(0.0f, nullptr);
  const float* noise = in_pieces(args)
                           ? buffers.noise
                           : made_noise(args, args.noise, solver_stream(args), tile, buffers.noise);
  if (l_1 == 0.0f) return Term(l_0 == 0.0f ? s : s * exponential(broadcast(0.5f * l_0))[0], noise);
  const float* v = read_tile(args.v, tile, buffers.m);
  float* scaled = buffers.noise;
  for_vectors(tile.count, [=](int i, auto access) {
    const Floats half_log = 0.5f * (l_0 + l_1 * access.load_from(v + i));
    // exponential() stops at exp(88); what is larger than float32 has to become infinite
    const Floats far = half_log > 64.0f ? broadcast(64.0f) : Floats{};
    const Floats factor = far > 0.0f ? broadcast(6.2351491e27f) : broadcast(1.0f);  // exp(far)
    access.store_to(scaled + i, exponential(half_log - far) * factor * access.load_from(noise + i));
  });
  return Term(s, scaled);
}

// out = mask * (i_y * known + i_s * noise) + (1 - mask) * out; the side whose weight is 0 is not read.
static void blend_known(const SolverStepArgs& args, const Tile& tile, Buffers& buffers, float* out) {
  const float i_y = args.row[k_i_y], i_s = args.row[k_i_s];
  const float* mask = read_tile(args.mask, tile, buffers.m);
  const float* known = i_y != 0.0f ? read_tile(args.known, tile, buffers.cond) : nullptr;
  const float* noise =
      i_s != 0.0f ? made_noise(args, args.known_noise, k_stream_known, tile, buffers.noise) : nullptr;
  for_vectors(tile.count, [=](int i, auto access) {
    const Floats weight = access.load_from(mask + i), free = access.load_from(out + i);
    Floats region{};
    if (known) region += i_y * access.load_from(known + i);
    if (noise) region += i_s * access.load_from(noise + i);
    const Floats mixed = weight * region + (1.0f - weight) * free;
    access.store_to(out + i, weight == 1.0f ? region : (weight == 0.0f ? free : mixed));
  });
}

// Targets of the row's pushes; of two pushes of the same kind the second is a copy, made after the pass.
struct Targets {
  Pushes push;
  float *copy_from = nullptr, *copy_to = nullptr;

  void add(int what, float* to) {
    float*& target = what == k_push_x ? push.x : what == k_push_x0 ? push.x0 : push.eps;
    if (target) {
      copy_from = target;
      copy_to = to;
    } else {
      target = to;
    }
  }
};

// Elements first ... end - 1 of a tile.
static void run_row(const TileStep& step, unsigned uses, int first, int end) {
  if ((uses & kUsual) == kUsual && (uses & ~kUsualMay) == 0)
    run<kUsual, kUsualMay>(step, uses, first, end);
  else
    run<0, kAll>(step, uses, first, end);
}

static void update(const SolverStepArgs& args, const Tile& tile, const TileStep& step, Buffers& buffers) {
  const unsigned uses = uses_of(step);
  if (!in_pieces(args)) return run_row(step, uses, 0, step.count);
  const TileKeys keys(noise_key(args, tile, solver_stream(args)), static_cast<uint64_t>(tile.begin) / 4);
  for (int first = 0; first < step.count; first += kPiece) {
    const int end = first + kPiece < step.count ? first + kPiece : step.count;
    const Ahead ahead{step.x + first, step.m ? step.m + first : nullptr, step.out + first};
    normal_piece(keys, tile.begin + first, end - first, buffers.noise + first, ahead);
    run_row(step, uses, first, end);
  }
}

static void step_tile(const SolverStepArgs& args, const Tile& tile, Buffers& buffers) {
  const float* row = args.row;
  const int64_t at = tile.sample * args.samples.count + tile.begin;
  const int64_t ring = args.samples.batch * args.samples.count;
  const Coefficients c(row, args.per_sample ? args.per_sample + tile.sample * k_per_sample_width : nullptr);
  const Term noise = solver_noise(args, tile, buffers);  // first: it may use the buffer of m
  const bool pair = (c.uses_m() && c.g_u != 0) || c.q_u != 0 || c.p_u != 0;
  const auto slot = [&](int which) { return args.history + static_cast<int64_t>(row[which]) * ring + at; };
  const auto past = [&](int k) {
    return Term(row[k_h_0 + k], row[k_h_0 + k] != 0 ? slot(k_slot_0 + k) : nullptr);
  };
  Targets targets;
  for (int k = 0; k < kPushes; ++k) {
    const int what = static_cast<int>(row[k_push_0 + 2 * k]);
    if (what != k_push_none) targets.add(what, slot(k_push_0_slot + 2 * k));
  }
  if (args.x0_out) targets.push.x0_out = args.x0_out + at;
  const TileStep step{
      c,
      args.x + at,
      c.uses_m() && c.g_c != 0 ? read_tile(args.m, tile, buffers.m) : nullptr,
      pair ? read_tile(args.m_u, tile, buffers.m_u) : nullptr,
      c.u_c != 0 || c.p_c != 0 || c.d != 0 ? read_tile(args.cond, tile, buffers.cond) : nullptr,
      noise,
      {past(0), past(1), past(2)},
      targets.push,
      args.out + at,
      tile.count};
  update(args, tile, step, buffers);
  if (targets.copy_to)
    __builtin_memcpy(targets.copy_to, targets.copy_from, 4 * static_cast<unsigned>(tile.count));
  if (args.mask) blend_known(args, tile, buffers, args.out + at);
}

void solver_step(const SolverStepArgs& args, int64_t begin, int64_t end) {
  Buffers buffers;
  for (int64_t index = begin; index < end; ++index) step_tile(args, Tile(args.samples, index), buffers);
}

}  // namespace fastdiff::FASTDIFF_ISA
