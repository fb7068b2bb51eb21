// group_norm_silu and its gradient, see fastdiff/ops/group_norm_silu.py. A unit is one group of one sample,
// or, in a channels_last map, a few neighbouring groups: it is read from memory once and stays in cache until
// it is done.
#include "channel_factors.h"
#include "entries.h"
#include "moments.h"
#include "silu.h"

namespace fastdiff::FASTDIFF_ISA {

// u = (x - center) * slope + offset before the activation, channel by channel of a unit.
struct Affine {
  float *center, *slope, *offset;
};

struct Unit {
  int64_t sample, first_group, groups, width, first_channel, channels;
  int64_t start;  // element of the map where it begins
  float *statistics, *scratch;

  Unit(const GroupNormArgs& args, int64_t index) {
    const int64_t per_sample = units_per_sample(args), count = groups_per_unit(args);
    sample = index / per_sample;
    first_group = index % per_sample * count;
    groups = args.groups - first_group < count ? args.groups - first_group : count;
    width = args.map.channels / args.groups;
    first_channel = first_group * width;
    channels = groups * width;
    const int64_t before = args.map.channels_last ? first_channel : first_channel * args.map.pixels;
    start = sample * args.map.channels * args.map.pixels + before;
    statistics = args.statistics + (sample * args.groups + first_group) * k_statistics;
    scratch = args.scratch + (sample * args.map.channels + first_channel) * kGroupNormScratch;
  }

  float* array(int which) const { return scratch + which * channels; }
  Affine affine() const { return {array(0), array(1), array(2)}; }
};

static void finish_statistics(const GroupNormArgs& args, const Spread& all, float* statistics) {
  const double variance = all.squares / all.count;
  statistics[k_mean] = static_cast<float>(all.mean);
  statistics[k_mean_rest] = static_cast<float>(all.mean - statistics[k_mean]);
  statistics[k_reciprocal] = static_cast<float>(1.0 / __builtin_sqrt(variance + args.eps));
}

template <class T>
static void measure(const GroupNormArgs& args, const Unit& unit, const typename T::Raw* x) {
  if (!args.map.channels_last) {
    finish_statistics(args, spread_of_array<T>(x, unit.channels * args.map.pixels), unit.statistics);
    return;
  }
  const Moments m{unit.array(0), unit.array(1), unit.array(2)};
  all_column_moments<T>(x, args.map.pixels, args.map.channels, unit.channels, m);
  for (int64_t g = 0; g < unit.groups; ++g) {
    const int64_t c = g * unit.width;
    const Moments own{m.pivot + c, m.offset + c, m.squares + c};
    finish_statistics(args, spread_of(own, static_cast<int>(unit.width), args.map.pixels),
                      unit.statistics + g * k_statistics);
  }
}

static void make_affine(const GroupNormArgs& args, const Unit& unit) {
  const Affine affine = unit.affine();
  for (int64_t c = 0; c < unit.channels; ++c) {
    const float* statistics = unit.statistics + c / unit.width * k_statistics;
    const ChannelFactor factor = channel_factor(args.factors, unit.sample, unit.first_channel + c);
    affine.center[c] = statistics[k_mean];
    affine.slope[c] = factor.gain * statistics[k_reciprocal];
    affine.offset[c] = factor.offset - statistics[k_mean_rest] * affine.slope[c];
  }
}

template <class T, bool Activate>
static void apply_channel(const typename T::Raw* x, int64_t count, float center, float slope, float offset,
                          typename T::Raw* out) {
  each_vector(count, [=](int64_t i, auto access) {
    const Floats u = (access.template get<T>(x + i) - center) * slope + offset;
    access.template put<T>(out + i, Activate ? silu(u) : u);
  });
}

template <class T, bool Activate>
static void apply_pixel(const typename T::Raw* x, int64_t count, Affine affine, typename T::Raw* out) {
  each_vector(count, [=](int64_t c, auto access) {
    const Floats e = access.template get<T>(x + c) - access.template get<F32>(affine.center + c);
    const Floats u =
        e * access.template get<F32>(affine.slope + c) + access.template get<F32>(affine.offset + c);
    access.template put<T>(out + c, Activate ? silu(u) : u);
  });
}

template <class T, bool Activate>
static void forward(const GroupNormArgs& args, int64_t begin, int64_t end) {
  using Raw = typename T::Raw;
  for (int64_t index = begin; index < end; ++index) {
    const Unit unit(args, index);
    const Raw* x = static_cast<const Raw*>(args.x) + unit.start;
    Raw* out = static_cast<Raw*>(args.out) + unit.start;
    measure<T>(args, unit, x);
    make_affine(args, unit);
    const Affine a = unit.affine();
    const int64_t channels = args.map.channels, pixels = args.map.pixels;
    if (args.map.channels_last) {
      for (int64_t p = 0; p < pixels; ++p)
        apply_pixel<T, Activate>(x + p * channels, unit.channels, a, out + p * channels);
    } else {
      for (int64_t c = 0; c < unit.channels; ++c)
        apply_channel<T, Activate>(x + c * pixels, pixels, a.center[c], a.slope[c], a.offset[c],
                                   out + c * pixels);
    }
  }
}

void group_norm_silu(const GroupNormArgs& args, int64_t begin, int64_t end) {
  with_element(args.map.element, [&](auto type) {
    using T = decltype(type);
    args.activate ? forward<T, true>(args, begin, end) : forward<T, false>(args, begin, end);
  });
}

// The backward pass. With du the gradient before the activation and e = x - center:
//   sums over a channel of du and of du * e, then dx = slope * du + along * e + constant,
// where along and constant belong to the group. float32 keeps du in dx between the two passes.

template <bool Activate>
static inline __attribute__((always_inline)) Floats through_activation(Floats gradient, Floats u) {
  return Activate ? gradient * silu_slope(u) : gradient;
}

// Sums of du and du * e over V vectors of columns; a block of rows at a time, so that the sums stay exact.
template <class T, int V, bool Activate, bool Keep, class Access>
static inline __attribute__((always_inline)) void sum_columns(
    const typename T::Raw* x, const typename T::Raw* gradient, int64_t rows, int64_t stride, Access access,
    const Floats (&center)[V], const Floats (&slope)[V], const Floats (&offset)[V], typename T::Raw* du_out,
    Floats (&sum)[V], Floats (&along)[V]) {
  constexpr int64_t kRows = 64;
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t last = first + kRows < rows ? first + kRows : rows;
    Floats block_sum[V] = {}, block_along[V] = {};
    for (int64_t at = first * stride; at < last * stride; at += stride) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Floats e = access.template get<T>(x + at + v * kLanes) - center[v];
        const Floats given = access.template get<T>(gradient + at + v * kLanes);
        const Floats du = through_activation<Activate>(given, e * slope[v] + offset[v]);
        block_sum[v] += du;
        block_along[v] += du * e;
        if (Keep) access.template put<T>(du_out + at + v * kLanes, du);
      }
    }
    for (int v = 0; v < V; ++v) {
      sum[v] += block_sum[v];
      along[v] += block_along[v];
    }
  }
}

// The same with one affine map per column, sums written to `sum` and `along`.
template <class T, int V, bool Activate, bool Keep, class Access>
static void sum_channels(const typename T::Raw* x, const typename T::Raw* gradient, const GroupNormArgs& args,
                         Access access, Affine affine, typename T::Raw* du_out, float* sum, float* along) {
  Floats center[V], slope[V], offset[V], total[V] = {}, total_along[V] = {};
  for (int v = 0; v < V; ++v) {
    center[v] = access.template get<F32>(affine.center + v * kLanes);
    slope[v] = access.template get<F32>(affine.slope + v * kLanes);
    offset[v] = access.template get<F32>(affine.offset + v * kLanes);
  }
  sum_columns<T, V, Activate, Keep>(x, gradient, args.map.pixels, args.map.channels, access, center, slope,
                                    offset, du_out, total, total_along);
  for (int v = 0; v < V; ++v) {
    access.template put<F32>(sum + v * kLanes, total[v]);
    access.template put<F32>(along + v * kLanes, total_along[v]);
  }
}

// The same for the pixels of one channel.
template <class T, bool Activate, bool Keep>
static void sum_pixels(const typename T::Raw* x, const typename T::Raw* gradient, int64_t count, float center,
                       float slope, float offset, typename T::Raw* du_out, float* sum, float* along) {
  const Floats c[1] = {broadcast(center)}, s[1] = {broadcast(slope)}, o[1] = {broadcast(offset)};
  Floats total[1] = {}, total_along[1] = {};
  const int64_t whole = count / kLanes, done = whole * kLanes;
  sum_columns<T, 1, Activate, Keep>(x, gradient, whole, kLanes, All{}, c, s, o, du_out, total, total_along);
  *sum = sum_of_lanes(total[0]);
  *along = sum_of_lanes(total_along[0]);
  if (done == count) return;
  const Some some{static_cast<int>(count - done)};
  Floats rest[1] = {}, rest_along[1] = {};
  sum_columns<T, 1, Activate, Keep>(x + done, gradient + done, 1, kLanes, some, c, s, o, du_out + done, rest,
                                    rest_along);
  *sum += sum_of_lanes(rest[0]);
  *along += sum_of_lanes(rest_along[0]);
}

template <class T, bool Activate, bool Keep>
static void sum_unit(const GroupNormArgs& args, const Unit& unit, const typename T::Raw* x,
                     const typename T::Raw* gradient, typename T::Raw* du, float* sum, float* along) {
  const Affine a = unit.affine();
  const int64_t pixels = args.map.pixels;
  if (!args.map.channels_last) {
    for (int64_t c = 0; c < unit.channels; ++c)
      sum_pixels<T, Activate, Keep>(x + c * pixels, gradient + c * pixels, pixels, a.center[c], a.slope[c],
                                    a.offset[c], du + c * pixels, sum + c, along + c);
    return;
  }
  const auto from = [&a](int64_t c) { return Affine{a.center + c, a.slope + c, a.offset + c}; };
  int64_t c = 0;
  for (; c + 2 * kLanes <= unit.channels; c += 2 * kLanes)
    sum_channels<T, 2, Activate, Keep>(x + c, gradient + c, args, All{}, from(c), du + c, sum + c, along + c);
  for (; c + kLanes <= unit.channels; c += kLanes)
    sum_channels<T, 1, Activate, Keep>(x + c, gradient + c, args, All{}, from(c), du + c, sum + c, along + c);
  if (c < unit.channels)
    sum_channels<T, 1, Activate, Keep>(x + c, gradient + c, args, Some{static_cast<int>(unit.channels - c)},
                                       from(c), du + c, sum + c, along + c);
}

// From the sums of the channels to `along` and `constant` of each group; sums of du * e become those of
// du * normalised x.
static void finish_sums(const GroupNormArgs& args, const Unit& unit, const float* sum, float* along) {
  const double count = static_cast<double>(unit.width) * static_cast<double>(args.map.pixels);
  for (int64_t g = 0; g < unit.groups; ++g) {
    const float* statistics = unit.statistics + g * k_statistics;
    const double reciprocal = statistics[k_reciprocal], rest = statistics[k_mean_rest];
    double mean = 0.0, mean_along = 0.0;
    for (int64_t c = g * unit.width; c < (g + 1) * unit.width; ++c) {
      const double gain = channel_factor(args.factors, unit.sample, unit.first_channel + c).gain;
      along[c] = static_cast<float>(reciprocal * (along[c] - rest * sum[c]));
      mean += gain * sum[c];
      mean_along += gain * along[c];
    }
    const double factor = reciprocal * reciprocal * (mean_along / count);
    for (int64_t c = g * unit.width; c < (g + 1) * unit.width; ++c) {
      unit.array(3)[c] = static_cast<float>(-factor);
      unit.array(4)[c] = static_cast<float>(factor * rest - reciprocal * (mean / count));
    }
  }
}

// dx from du (kept or not activated) or once more from the gradient, for neighbouring elements; `get` reads a
// factor.
template <class T, bool Again, class Get>
static inline __attribute__((always_inline)) void gradient_run(const typename T::Raw* x,
                                                               const typename T::Raw* du, int64_t count,
                                                               const Unit& unit, const Get& get,
                                                               typename T::Raw* out) {
  each_vector(count, [&](int64_t i, auto access) {
    const Floats e = access.template get<T>(x + i) - get(unit.array(0), i, access);
    const Floats slope = get(unit.array(1), i, access);
    Floats d = access.template get<T>(du + i);
    if (Again) d *= silu_slope(e * slope + get(unit.array(2), i, access));
    const Floats rest = e * get(unit.array(3), i, access) + get(unit.array(4), i, access);
    access.template put<T>(out + i, slope * d + rest);
  });
}

template <class T, bool Again>
static void gradient_unit(const GroupNormArgs& args, const Unit& unit, const typename T::Raw* x,
                          const typename T::Raw* du, typename T::Raw* out) {
  const int64_t pixels = args.map.pixels, channels = args.map.channels;
  if (args.map.channels_last) {
    const auto own = [](const float* p, int64_t i, auto access) { return access.template get<F32>(p + i); };
    for (int64_t p = 0; p < pixels; ++p)
      gradient_run<T, Again>(x + p * channels, du + p * channels, unit.channels, unit, own,
                             out + p * channels);
  } else {
    for (int64_t c = 0; c < unit.channels; ++c) {
      const auto same = [c](const float* p, int64_t, auto) { return broadcast(p[c]); };
      gradient_run<T, Again>(x + c * pixels, du + c * pixels, pixels, unit, same, out + c * pixels);
    }
  }
}

template <class T, bool Activate, bool Keep>
static void backward(const GroupNormArgs& args, int64_t begin, int64_t end) {
  using Raw = typename T::Raw;
  for (int64_t index = begin; index < end; ++index) {
    const Unit unit(args, index);
    const Raw* x = static_cast<const Raw*>(args.x) + unit.start;
    const Raw* gradient = static_cast<const Raw*>(args.gradient) + unit.start;
    Raw* out = static_cast<Raw*>(args.out) + unit.start;
    float* sum = args.sums + unit.sample * args.map.channels + unit.first_channel;
    float* along = sum + args.map.batch * args.map.channels;
    make_affine(args, unit);
    sum_unit<T, Activate, Keep>(args, unit, x, gradient, out, sum, along);
    finish_sums(args, unit, sum, along);
    gradient_unit<T, Activate && !Keep>(args, unit, x, Keep ? out : gradient, out);
  }
}

void group_norm_silu_backward(const GroupNormArgs& args, int64_t begin, int64_t end) {
  if (!args.activate) {
    with_element(args.map.element,
                 [&](auto type) { backward<decltype(type), false, false>(args, begin, end); });
  } else if (args.map.element == Element::f32) {
    backward<F32, true, true>(args, begin, end);
  } else if (args.map.element == Element::f16) {
    backward<F16, true, false>(args, begin, end);
  } else {
    backward<BF16, true, false>(args, begin, end);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
