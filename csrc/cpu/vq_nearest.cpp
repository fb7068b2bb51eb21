// vq_nearest: the nearest code of each row, see fastdiff/ops/vq_nearest.py.
//
// A matrix product whose results never reach memory. The codes of a chunk are packed once into panels of
// kVectors vectors: 1/2 |e|^2 first, then dimension by dimension. kRows rows of z are packed dimension by
// dimension too. A register tile of kRows x kVectors vectors starts at 1/2 |e|^2, takes away z_d e_d for
// every d, and is folded into a minimum per row and lane, with the number of the vector that held it.
#include "entries.h"
#include "read_rows.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kVectors = 2;
constexpr int kRows = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4;  // accumulators + 3 vectors fill the registers
constexpr int kPanel = kVectors * kLanes;
constexpr int64_t kBlock = 256 * kRows;  // rows that share one packing of the codebook
constexpr float kInfinity = __builtin_inff();

// The smallest 1/2 |e|^2 - z.e so far, and which code gave it.
struct Best {
  Floats value;
  Ints code;
};

static inline Ints select(Ints mask, Ints yes, Ints no) {
  return mask ? yes : no;
}

// Of two candidates per lane the smaller, of equal ones the lower code.
static inline Best better(const Best& a, const Best& b) {
  const Ints second = (b.value < a.value) | ((b.value == a.value) & (b.code < a.code));
  return {second ? b.value : a.value, select(second, b.code, a.code)};
}

static inline Ints interleave_low(Ints a, Ints b) {
  return as_ints(interleave_low(as_floats(a), as_floats(b)));
}
static inline Ints interleave_high(Ints a, Ints b) {
  return as_ints(interleave_high(as_floats(a), as_floats(b)));
}

// Row i of kLanes candidates becomes lane i of the result: the rounds of a transposition, folded as they go.
static inline Best fold_rows(Best (&m)[kLanes]) {
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      const Best &a = m[i], &b = m[i + half];
      m[i] = better({interleave_low(a.value, b.value), interleave_low(a.code, b.code)},
                    {interleave_high(a.value, b.value), interleave_high(a.code, b.code)});
    }
  }
  return m[0];
}

// kLanes codes from `first` on as lanes: dimension d goes to out[(1 + d) * kPanel], 1/2 |e|^2 to out[0].
static void pack_codes(const Rows& codes, const float* centre, int64_t first, float* out) {
  int64_t offsets[kLanes] = {};
  const int here = lanes_left(codes.count, first);
  for (int i = 0; i < here; ++i) offsets[i] = codes.offset(first + i);
  Floats norm{};
  for (int64_t d = 0; d < codes.width; d += kLanes) {
    const int n = lanes_left(codes.width, d);
    const Floats middle = centre ? load_first(centre + d, n) : Floats{};
    Floats m[kLanes], part{};
    for (int i = 0; i < kLanes; ++i) m[i] = i < here ? read_row(codes, offsets[i], d, n) - middle : Floats{};
    transpose(m);
    for (int i = 0; i < n; ++i) {
      part += m[i] * m[i];
      store(out + (1 + d + i) * kPanel, m[i]);
    }
    norm += part;
  }
  norm *= 0.5f;
  for (int i = here; i < kLanes; ++i) norm[i] = kInfinity;  // no code: never the nearest
  store(out, norm);
}

static void pack_chunk(const Rows& codes, const float* centre, int64_t first, int64_t end, float* panels) {
  for (int64_t code = first; code < end; code += kPanel, panels += kPanel * (codes.width + 1)) {
    for (int v = 0; v < kVectors; ++v) pack_codes(codes, centre, code + v * kLanes, panels + v * kLanes);
  }
}

// `count` rows from `first` on: dimension d of row i goes to out[d * kRows + i]; missing rows are 0.
static void pack_rows(const Rows& z, const float* centre, int64_t first, int count, float* out) {
  int64_t offsets[kRows] = {};
  for (int i = 0; i < count; ++i) offsets[i] = z.offset(first + i);
  for (int64_t d = 0; d < z.width; d += kLanes) {
    const int n = lanes_left(z.width, d);
    const Floats middle = centre ? load_first(centre + d, n) : Floats{};
    Floats m[kLanes] = {};
    for (int i = 0; i < kRows; ++i) m[i] = i < count ? read_row(z, offsets[i], d, n) - middle : Floats{};
    transpose(m);
    // A store reaches beyond its kRows floats; the next one, or the slack at the end, takes what is too much.
    for (int i = 0; i < n; ++i) store(out + (d + i) * kRows, m[i]);
  }
}

// One register tile: kRows rows against one panel, whose first vector has the number `number`.
static void tile(const float* z, const float* panel, int64_t depth, int number, Best* best) {
  Floats score[kRows][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) score[i][v] = load(panel + v * kLanes);
  }
  for (int64_t d = 0; d < depth; ++d) {
    panel += kPanel;
    const Floats e[kVectors] = {load(panel), load(panel + kLanes)};
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
      const Floats value = broadcast(z[i]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) score[i][v] -= value * e[v];
    }
    z += kRows;
  }
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
    Best b = best[i];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const Ints less = score[i][v] < b.value;  // never for NaN
      b.value = score[i][v] < b.value ? score[i][v] : b.value;
      b.code = select(less, Ints{} + (number + v), b.code);
    }
    best[i] = b;
  }
}

// The nearest code of a packed chunk for each of kRows packed rows.
static Best search(const float* z, const float* panels, int64_t depth, int64_t first, int64_t codes) {
  Best best[kLanes];
  for (int i = 0; i < kLanes; ++i) best[i] = {broadcast(kInfinity), Ints{}};
  for (int64_t p = 0; p * kPanel < codes; ++p)
    tile(z, panels + p * kPanel * (depth + 1), depth, static_cast<int>(p) * kVectors, best);
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  for (int i = 0; i < kRows; ++i) best[i].code = best[i].code * kLanes + lane + static_cast<int32_t>(first);
  return fold_rows(best);
}

static float squared_distance(const Rows& z, int64_t z_at, const Rows& codes, int64_t code_at) {
  Floats sum{};
  for (int64_t d = 0; d < z.width; d += kLanes) {
    const int n = lanes_left(z.width, d);
    const Floats apart = read_row(z, z_at, d, n) - read_row(codes, code_at, d, n);
    sum += apart * apart;
  }
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  return total;
}

// Copies a code as it is, whatever its element type.
static void copy_code(const Rows& codes, int64_t at, char* out) {
  const int64_t size = codes.element == Element::f32 ? 4 : 2;
  const char* from = static_cast<const char*>(codes.data) + at * size;
  if (codes.step == 1) {
    __builtin_memcpy(out, from, static_cast<unsigned long>(codes.width * size));
    return;
  }
  for (int64_t d = 0; d < codes.width; ++d)
    __builtin_memcpy(out + d * size, from + d * codes.step * size, static_cast<unsigned long>(size));
}

static void write_rows(const VqNearestArgs& args, int64_t first, int64_t count, const int32_t* found) {
  const int64_t bytes = args.codes.width * (args.codes.element == Element::f32 ? 4 : 2);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = first + i, code_at = args.codes.offset(found[i]);
    args.index[row] = found[i];
    if (args.distance) args.distance[row] = squared_distance(args.z, args.z.offset(row), args.codes, code_at);
    if (args.quantised) copy_code(args.codes, code_at, static_cast<char*>(args.quantised) + row * bytes);
  }
}

// Keeps what a chunk found where it is nearer than what earlier chunks, whose codes are lower, had found.
static void keep(const Best& here, int count, float* best, int32_t* found) {
  for (int i = 0; i < count; ++i) {
    if (here.value[i] < best[i]) {
      best[i] = here.value[i];
      found[i] = here.code[i];
    }
  }
}

// What to take from every row and code, so that codes far from 0 and close together keep their digits: in
// each dimension the mean of up to 256 codes where that is large against their spread, else 0. It is rounded
// to a multiple of a power of two below the spread, so that taking it away is exact where it matters. Returns
// whether any dimension has one.
static bool find_centre(const Rows& codes, float* centre) {
  const int64_t samples = codes.count < 256 ? codes.count : 256;
  bool any = false;
  for (int64_t d = 0; d < codes.width; d += kLanes) {
    const int n = lanes_left(codes.width, d);
    const Floats first = read_row(codes, codes.offset(0), d, n);
    Floats sum{}, squares{};
    for (int64_t s = 1; s < samples; ++s) {
      const Floats apart = read_row(codes, codes.offset(s * codes.count / samples), d, n) - first;
      sum += apart;
      squares += apart * apart;
    }
    const Floats shift = sum / static_cast<float>(samples), mean = first + shift;
    const Floats variance = squares / static_cast<float>(samples) - shift * shift;
    const Floats power = as_floats(as_ints(square_root(variance)) & 0x7F800000);
    const Floats round = power * 12582912.0f;         // 1.5 * 2**23: adding it leaves multiples of the power
    const Ints far = mean * mean > 16.0f * variance;  // never for NaN
    const Floats chosen = variance > 0.0f ? (mean + round) - round : mean;
    store_first(centre + d, far ? chosen : Floats{}, n);
    for (int i = 0; i < n; ++i) any |= far[i] != 0 && chosen[i] != 0.0f;
  }
  return any;
}

void vq_nearest(const VqNearestArgs& args, float* scratch, int64_t begin, int64_t end) {
  const int64_t depth = args.z.width, codes = args.codes.count;
  float best[kBlock];
  int32_t found[kBlock];
  float *const z = scratch, *const panels = scratch + (depth * kRows + kLanes + 15) / 16 * 16;
  float* const middle = panels + (args.chunk * (depth + 1));
  const float* const centre = find_centre(args.codes, middle) ? middle : nullptr;
  int64_t packed = -1;
  for (int64_t block = begin; block < end; block += kBlock) {
    const int64_t rows = end - block < kBlock ? end - block : kBlock;
    for (int64_t i = 0; i < rows; ++i) {
      best[i] = kInfinity;
      found[i] = 0;
    }
    for (int64_t first = 0; first < codes; first += args.chunk) {
      const int64_t here = codes - first < args.chunk ? codes - first : args.chunk;
      if (packed != first) pack_chunk(args.codes, centre, first, first + here, panels);
      packed = first;
      for (int64_t i = 0; i < rows; i += kRows) {
        const int count = static_cast<int>(rows - i < kRows ? rows - i : kRows);
        pack_rows(args.z, centre, block + i, count, z);
        keep(search(z, panels, depth, first, here), count, best + i, found + i);
      }
    }
    write_rows(args, block, rows, found);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
