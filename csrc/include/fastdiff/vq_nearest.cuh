// vq_nearest; see fastdiff/ops/vq_nearest.py. A block finds the nearest codes of kSearchRows rows. Rows and
// codes pass through shared memory, kSearchDepth dimensions at a time, two steps deep: while one is
// multiplied the next one's loads are under way, and one barrier a step is enough. A thread has kOfThread x
// kOfThread scores and, of each of its rows, the least so far and its code. Where the rows of a block fit
// beside that they are read once.
#pragma once

#include "fastdiff/block.cuh"
#include "fastdiff/packet.cuh"
#include "fastdiff/rows.h"

#ifdef __CUDA_ARCH__
#define FASTDIFF_UNROLL _Pragma("unroll")
#else
#define FASTDIFF_UNROLL
#endif

namespace fastdiff::device {

constexpr int kSearchThreads = 256;
constexpr int kSearchRows = 128;
constexpr int kSearchCodes = 128;
constexpr int kSearchDepth = 16;
constexpr int kOfThread = 8;
constexpr int kLanesOfRow = kSearchCodes / kOfThread;  // threads that share the rows of a thread
constexpr int kPanel = kSearchDepth * kSearchRows;     // floats of one step
constexpr int kFoldPitch = kLanesOfRow + 1;
constexpr float kFar = INFINITY;
static_assert(kSearchRows == kSearchCodes && kSearchThreads == 2 * kSearchRows,
              "a thread loads half a row of a step");
static_assert(8 * kSearchThreads == kPanel, "a thread loads eight elements of rows and of codes");

struct VqNearestLaunch {
  Rows z;
  Rows codes;
  const float* pivot = nullptr;  // (D,), taken from rows and codes, or null
  int64_t* index = nullptr;      // (N,)
  void* quantised = nullptr;     // (N, D) of the codes' type, or null
  float* distance = nullptr;     // (N,) or null
  int64_t* counts = nullptr;     // (K,) zeros, or null
  int slots = 2;                 // panels of rows in shared memory: two, or those of whole rows
};

// Panels of rows, panels of codes, halves of norms, and in place of both of them the candidates of the fold.
constexpr int64_t kSearchTables = 2 * kPanel + 4 * kSearchCodes;
static_assert(2 * kFoldPitch * kSearchRows <= kSearchTables, "the fold takes the place of the codes");

FASTDIFF_HD int64_t steps_of(int64_t width) {
  return (width + kSearchDepth - 1) / kSearchDepth;
}

// Bytes of shared memory for `slots` panels of rows.
FASTDIFF_HD int64_t search_shared(int64_t slots) {
  return 4 * (slots * kPanel + kSearchTables);
}

// Panels of rows that a block holds, given how much shared memory it may have.
FASTDIFF_HD int search_slots(int64_t width, int64_t limit) {
  const int64_t all = steps_of(width);
  return all > 2 && search_shared(all) <= limit ? static_cast<int>(all) : 2;
}

// Eight neighbouring elements of a row, as they lie in memory.
template <class T>
struct Eight {
  static constexpr int kCount = 16 / sizeof(T);
  Packet<T, kCount> part[8 / kCount];
};

// Elements d ... d + 7 of the row that starts at `at`; what lies beyond the width is 0.
template <class T>
FASTDIFF_HD Eight<T> load_eight(const Rows& rows, int64_t at, int64_t d, bool real) {
  constexpr int kCount = Eight<T>::kCount;
  Eight<T> eight{};
  if (!real || d >= rows.width) return eight;
  const T* const from = static_cast<const T*>(rows.data) + at + d * rows.step;
  if (rows.step == 1 && d + 8 <= rows.width && aligned(from, 16)) {
    for (int p = 0; p < 8 / kCount; ++p) eight.part[p] = reinterpret_cast<const Packet<T, kCount>*>(from)[p];
    return eight;
  }
  FASTDIFF_UNROLL
  for (int k = 0; k < 8; ++k) {
    if (d + k < rows.width) eight.part[k / kCount].v[k % kCount] = from[k * rows.step];
  }
  return eight;
}

template <class T>
FASTDIFF_HD float element(const Eight<T>& eight, int k, Element kind) {
  constexpr int kCount = Eight<T>::kCount;
  return to_float(eight.part[k / kCount].v[k % kCount], kind);
}

// The least score so far of each row of a thread, and its code.
struct Least {
  float score[kOfThread];
  int32_t code[kOfThread];
};

// Where the rows and the codes of a thread lie in a tile: two runs of four, so that a warp reads 128 bits a
// lane without a conflict of banks.
FASTDIFF_HD int in_tile(int lane, int i) {
  return i / 4 * (kSearchRows / 2) + 4 * lane + i % 4;
}

FASTDIFF_HD void multiply(const float* z, const float* codes, int row_lane, int code_lane,
                          float (&score)[kOfThread][kOfThread]) {
  FASTDIFF_UNROLL
  for (int d = 0; d < kSearchDepth; ++d) {
    Four a[2], b[2];
    for (int half = 0; half < 2; ++half) {
      a[half] = *reinterpret_cast<const Four*>(z + d * kSearchRows + in_tile(row_lane, 4 * half));
      b[half] = *reinterpret_cast<const Four*>(codes + d * kSearchCodes + in_tile(code_lane, 4 * half));
    }
    FASTDIFF_UNROLL
    for (int i = 0; i < kOfThread; ++i) {
      FASTDIFF_UNROLL
      for (int j = 0; j < kOfThread; ++j) score[i][j] += a[i / 4].v[i % 4] * b[j / 4].v[j % 4];
    }
  }
}

// Takes 1/2 |e|^2 - z.e of a tile into the least of each row; codes come in ascending order, so of equal
// scores the lowest code stays, and what is not a number is never less.
FASTDIFF_HD void take(const float* halves, int code_lane, int32_t first, float (&score)[kOfThread][kOfThread],
                      Least& least) {
  FASTDIFF_UNROLL
  for (int j = 0; j < kOfThread; ++j) {
    const int local = in_tile(code_lane, j);
    const float norm = halves[local] + halves[kSearchCodes + local];
    FASTDIFF_UNROLL
    for (int i = 0; i < kOfThread; ++i) {
      const float here = norm - score[i][j];
      if (here < least.score[i]) {
        least.score[i] = here;
        least.code[i] = first + local;
      }
      score[i][j] = 0.0f;
    }
  }
}

// One operand of a step on its way: the thread's eight elements, and where they go.
template <class T>
FASTDIFF_HD void put(const Eight<T>& eight, const Rows& rows, const float* pivot, int64_t d, bool real,
                     float* panel, float& squares) {
  for (int k = 0; k < 8; ++k) {
    float value = element(eight, k, rows.element);
    if (pivot && real && d + k < rows.width) value -= pivot[d + k];
    panel[k * kSearchRows] = value;
    squares += value * value;
  }
}

// The nearest code of each row of the block, in found[row].
template <class TZ, class TE, class Block>
FASTDIFF_HD void search(const VqNearestLaunch& args, const Block& block, int64_t index, float* shared,
                        float* found) {
  float *const rows = shared, *const codes = shared + static_cast<int64_t>(args.slots) * kPanel;
  float* const halves = codes + 2 * kPanel;
  const int mine = block.thread % kSearchRows, half = block.thread / kSearchRows;  // what the thread loads
  const int code_lane = block.thread % kLanesOfRow, row_lane = block.thread / kLanesOfRow;
  const int64_t row = index * kSearchRows + mine, chunks = steps_of(args.z.width);
  const bool real = row < args.z.count, whole = args.slots == chunks;
  const int64_t row_at = real ? args.z.offset(row) : 0;
  const int64_t steps = (args.codes.count + kSearchCodes - 1) / kSearchCodes * chunks;

  Least least;
  float score[kOfThread][kOfThread];
  FASTDIFF_UNROLL
  for (int i = 0; i < kOfThread; ++i) {
    least.score[i] = kFar;
    least.code[i] = 0;
    FASTDIFF_UNROLL
    for (int j = 0; j < kOfThread; ++j) score[i][j] = 0.0f;
  }
  Eight<TZ> next_z{};
  Eight<TE> next_code{};
  int64_t chunk = 0, code = mine;  // of the step whose elements are on their way
  const auto fetch = [&](bool rows_too) {
    const int64_t d = chunk * kSearchDepth + 8 * half;
    const bool exists = code < args.codes.count;
    if (rows_too) next_z = load_eight<TZ>(args.z, row_at, d, real);
    next_code = load_eight<TE>(args.codes, exists ? args.codes.offset(code) : 0, d, exists);
  };
  fetch(true);
  float squares = 0.0f, unused = 0.0f;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t d = chunk * kSearchDepth + 8 * half;
    const int64_t now = chunk;
    const bool exists = code < args.codes.count, last = chunk + 1 == chunks, first_tile = step < chunks;
    const int place = 8 * half * kSearchRows + mine;
    float* const row_panel = rows + (whole ? now : step % 2) * kPanel;
    float* const code_panel = codes + step % 2 * kPanel;
    float* const norms = halves + step % 2 * (2 * kSearchCodes);
    if (first_tile || !whole) put(next_z, args.z, args.pivot, d, real, row_panel + place, unused);
    put(next_code, args.codes, args.pivot, d, exists, code_panel + place, squares);
    const int32_t first = static_cast<int32_t>(code - mine);
    if (last) {
      norms[half * kSearchCodes + mine] = exists ? 0.5f * squares : kFar;
      squares = 0.0f;
      code += kSearchCodes;
    }
    chunk = last ? 0 : chunk + 1;
    block.sync();
    if (step + 1 < steps) fetch(!whole || step + 1 < chunks);
    multiply(row_panel, code_panel, row_lane, code_lane, score);
    if (last) take(norms, code_lane, first, score, least);
  }

  // The candidates of the threads that share a row, folded by one of them; of equal scores the lowest code
  // stays.
  float *const scores = codes, *const numbers = codes + kFoldPitch * kSearchRows;
  block.sync();
  FASTDIFF_UNROLL
  for (int i = 0; i < kOfThread; ++i) {
    const int at = in_tile(row_lane, i) * kFoldPitch + code_lane;
    scores[at] = least.score[i];
    numbers[at] = as_float(static_cast<uint32_t>(least.code[i]));
  }
  block.sync();
  if (half == 0) {
    float best = kFar;
    uint32_t nearest = 0;
    for (int lane = 0; lane < kLanesOfRow; ++lane) {
      const float here = scores[mine * kFoldPitch + lane];
      const uint32_t number = as_bits(numbers[mine * kFoldPitch + lane]);
      if (here < best || (here == best && here < kFar && number < nearest)) {
        best = here;
        nearest = number;
      }
    }
    found[mine] = as_float(nearest);
  }
  block.sync();
}

// Whole numbers, so the result does not depend on the order.
FASTDIFF_HD void count_one(int64_t* count) {
#ifdef __CUDA_ARCH__
  atomicAdd(reinterpret_cast<unsigned long long*>(count), 1ull);
#else
  ++*count;
#endif
}

// Two threads write what is asked for of a row: every second eight elements each.
template <class TZ, class TE, class Block>
FASTDIFF_HD void write_found(const VqNearestLaunch& args, const Block& block, int64_t index,
                             const float* found, float* parts) {
  constexpr int kCount = Eight<TE>::kCount;
  const int mine = block.thread % kSearchRows, half = block.thread / kSearchRows;
  const int64_t row = index * kSearchRows + mine, width = args.z.width;
  const bool real = row < args.z.count;
  const int64_t nearest = as_bits(found[mine]);
  const int64_t row_at = real ? args.z.offset(row) : 0, code_at = args.codes.offset(nearest);
  float sums[8] = {};
  for (int64_t d = 8 * half; real && d < width && (args.quantised || args.distance); d += 16) {
    const auto code = load_eight<TE>(args.codes, code_at, d, true);
    if (args.quantised) {
      TE* const to = static_cast<TE*>(args.quantised) + row * width + d;
      if (d + 8 <= width && aligned(to, 16)) {
        for (int p = 0; p < 8 / kCount; ++p) reinterpret_cast<Packet<TE, kCount>*>(to)[p] = code.part[p];
      } else {
        FASTDIFF_UNROLL
        for (int k = 0; k < 8; ++k) {
          if (d + k < width) to[k] = code.part[k / kCount].v[k % kCount];
        }
      }
    }
    if (!args.distance) continue;
    const auto z = load_eight<TZ>(args.z, row_at, d, true);
    for (int k = 0; k < 8; ++k) {
      const float apart = element(z, k, args.z.element) - element(code, k, args.codes.element);
      sums[k] += apart * apart;
    }
  }
  const float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  parts[block.thread] = sum;
  block.sync();
  if (half != 0 || !real) return;
  args.index[row] = nearest;
  if (args.distance) args.distance[row] = parts[mine] + parts[kSearchRows + mine];
  if (args.counts) count_one(args.counts + nearest);
}

// One block; `shared` holds search_shared(slots) bytes.
template <class TZ, class TE, class Block>
FASTDIFF_HD void vq_nearest(const VqNearestLaunch& args, const Block& block, int64_t index, float* shared) {
  // The rows are no longer needed when the first code is found; two panels of them hold what was found.
  search<TZ, TE>(args, block, index, shared, shared);
  write_found<TZ, TE>(args, block, index, shared, shared + kSearchRows);
}

#ifdef __CUDACC__
template <class TZ, class TE>
__global__ void __launch_bounds__(kSearchThreads, 1)
    vq_nearest_kernel(const __grid_constant__ VqNearestLaunch args) {
  extern __shared__ __align__(16) float shared[];
  vq_nearest<TZ, TE>(args, Block(), blockIdx.x, shared);
}
#endif

}  // namespace fastdiff::device
