// The gradient of group_norm_silu. With du the gradient before the activation and e = x - center:
//   sums over a channel of du and of du * e, then dx = slope * du + along * e + constant,
// where along and constant belong to the group. float32 keeps du in dx between the two passes.
#include "entries.h"
#include "group_norm.h"
#include "silu.h"

namespace fastdiff::FASTDIFF_ISA {

template <int V>
struct Vectors {
  static constexpr int count = V;
};

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

// The same with one affine map per column, added to `sum` and `along`.
template <class T, int V, bool Activate, bool Keep, class Access>
static void sum_channels(const typename T::Raw* x, const typename T::Raw* gradient, int64_t pixels,
                         int64_t stride, Access access, Affine affine, typename T::Raw* du_out, float* sum,
                         float* along) {
  Floats center[V], slope[V], offset[V], total[V] = {}, total_along[V] = {};
  for (int v = 0; v < V; ++v) {
    center[v] = access.template get<F32>(affine.center + v * kLanes);
    slope[v] = access.template get<F32>(affine.slope + v * kLanes);
    offset[v] = access.template get<F32>(affine.offset + v * kLanes);
  }
  sum_columns<T, V, Activate, Keep>(x, gradient, pixels, stride, access, center, slope, offset, du_out, total,
                                    total_along);
  for (int v = 0; v < V; ++v) {
    access.template put<F32>(sum + v * kLanes, access.template get<F32>(sum + v * kLanes) + total[v]);
    access.template put<F32>(along + v * kLanes,
                             access.template get<F32>(along + v * kLanes) + total_along[v]);
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

// Elements of one part: what is read, what is written.
template <class T>
struct Views {
  const typename T::Raw *x, *gradient;
  typename T::Raw* out;

  Views(const GroupNormArgs& args, int64_t start)
      : x(static_cast<const typename T::Raw*>(args.x) + start),
        gradient(static_cast<const typename T::Raw*>(args.gradient) + start),
        out(static_cast<typename T::Raw*>(args.out) + start) {}
};

// The sums of a group go to their place.
template <class T, bool Activate, bool Keep>
static void sum_group(const GroupNormArgs& args, int64_t index) {
  const Part part(args, index);
  const Views<T> views(args, part.start);
  const Affine a = affine_of(args, part.sample, part.first_channel);
  float* sum = args.sums + part.sample * args.map.channels + part.first_channel;
  float* along = sum + args.map.batch * args.map.channels;
  for (int64_t c = 0; c < part.channels; ++c) {
    const int64_t at = c * part.pixels;
    sum_pixels<T, Activate, Keep>(views.x + at, views.gradient + at, part.pixels, a.center[c], a.slope[c],
                                  a.offset[c], views.out + at, sum + c, along + c);
  }
}

// Channels last: those of a stretch of pixels go to its partials, a few pixels at a time in the order of
// memory.
template <class T, bool Activate, bool Keep>
static void sum_stretch(const GroupNormArgs& args, int64_t index) {
  constexpr int64_t kRows = 16;
  const Part part(args, index);
  const Views<T> views(args, part.start);
  const Affine a = affine_of(args, part.sample, 0);
  const int64_t channels = part.channels;
  float *sum = args.partials + index * kGroupNormPartials * channels, *along = sum + channels;
  for (int64_t c = 0; c < 2 * channels; ++c) sum[c] = 0.0f;
  for (int64_t row = 0; row < part.pixels; row += kRows) {
    const int64_t rows = part.pixels - row < kRows ? part.pixels - row : kRows;
    const auto run = [&](int64_t c, auto vectors, auto access) {
      const int64_t at = row * channels + c;
      sum_channels<T, decltype(vectors)::count, Activate, Keep>(
          views.x + at, views.gradient + at, rows, channels, access,
          {a.center + c, a.slope + c, a.offset + c}, views.out + at, sum + c, along + c);
    };
    int64_t c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes) run(c, Vectors<4>{}, All{});
    for (; c + kLanes <= channels; c += kLanes) run(c, Vectors<1>{}, All{});
    if (c < channels) run(c, Vectors<1>{}, Some{static_cast<int>(channels - c)});
  }
}

// Adds up the partial sums of a sample.
static void gather_sums(const GroupNormArgs& args, int64_t sample) {
  const int64_t parts = parts_per_sample(args), channels = args.map.channels;
  float* sum = args.sums + sample * channels;
  float* along = sum + args.map.batch * channels;
  for (int64_t c = 0; c < channels; ++c) sum[c] = along[c] = 0.0f;
  for (int64_t i = sample * parts; i < (sample + 1) * parts; ++i) {
    const float* partial = args.partials + i * kGroupNormPartials * channels;
    for (int64_t c = 0; c < channels; ++c) {
      sum[c] += partial[c];
      along[c] += partial[channels + c];
    }
  }
}

// From the sums of a group's channels to `along` and `constant`; sums of du * e become those of du *
// normalised x.
static void finish_group(const GroupNormArgs& args, int64_t sample, int64_t group) {
  const int64_t width = args.map.channels / args.groups, begin = group * width, end = begin + width;
  const float* statistics = args.statistics + (sample * args.groups + group) * k_statistics;
  const double count = static_cast<double>(width) * static_cast<double>(args.map.pixels);
  const double reciprocal = statistics[k_reciprocal], rest = statistics[k_mean_rest];
  float *sum = args.sums + sample * args.map.channels, *along = sum + args.map.batch * args.map.channels;
  double mean = 0.0, mean_along = 0.0;
  for (int64_t c = begin; c < end; ++c) {
    const double gain = channel_factor(args.factors, sample, c).gain;
    along[c] = static_cast<float>(reciprocal * (along[c] - rest * sum[c]));
    mean += gain * sum[c];
    mean_along += gain * along[c];
  }
  const double factor = reciprocal * reciprocal * (mean_along / count);
  float *slopes = channel_array(args, sample, 3), *constants = channel_array(args, sample, 4);
  for (int64_t c = begin; c < end; ++c) {
    slopes[c] = static_cast<float>(-factor);
    constants[c] = static_cast<float>(factor * rest - reciprocal * (mean / count));
  }
}

// What dx needs of one channel, or of many where channels are last.
struct Slopes {
  Affine affine;
  const float *along, *constant;
};

// dx from du (kept or not activated) or once more from the gradient, for neighbouring elements; `get` reads a
// factor.
template <class T, bool Again, class Get>
static inline __attribute__((always_inline)) void gradient_run(const typename T::Raw* x,
                                                               const typename T::Raw* du, int64_t count,
                                                               const Slopes& s, const Get& get,
                                                               typename T::Raw* out) {
  each_vector(count, [&](int64_t i, auto access) {
    const Floats e = access.template get<T>(x + i) - get(s.affine.center, i, access);
    const Floats slope = get(s.affine.slope, i, access);
    Floats d = access.template get<T>(du + i);
    if (Again) d *= silu_slope(e * slope + get(s.affine.offset, i, access));
    const Floats rest = e * get(s.along, i, access) + get(s.constant, i, access);
    access.template put<T>(out + i, slope * d + rest);
  });
}

template <class T, bool Again>
static void gradient_part(const GroupNormArgs& args, int64_t index, const void* source) {
  using Raw = typename T::Raw;
  const Part part(args, index);
  const Raw* x = static_cast<const Raw*>(args.x) + part.start;
  const Raw* du = static_cast<const Raw*>(source) + part.start;
  Raw* out = static_cast<Raw*>(args.out) + part.start;
  const int64_t pixels = part.pixels, channels = part.channels, first = part.first_channel;
  const Slopes slopes{affine_of(args, part.sample, first), channel_array(args, part.sample, 3) + first,
                      channel_array(args, part.sample, 4) + first};
  if (args.map.channels_last) {
    const auto own = [](const float* p, int64_t i, auto access) { return access.template get<F32>(p + i); };
    for (int64_t p = 0; p < pixels; ++p)
      gradient_run<T, Again>(x + p * channels, du + p * channels, channels, slopes, own, out + p * channels);
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      const auto same = [c](const float* p, int64_t, auto) { return broadcast(p[c]); };
      gradient_run<T, Again>(x + c * pixels, du + c * pixels, pixels, slopes, same, out + c * pixels);
    }
  }
}

template <class T, bool Activate, bool Keep>
struct Backward {
  static void prepare(const GroupNormArgs& args, int64_t sample, int64_t first_channel) {
    const int64_t width = args.map.channels_last ? args.map.channels : args.map.channels / args.groups;
    make_affine(args, sample, first_channel, width);
  }
  static void first(const GroupNormArgs& args, int64_t part) {
    args.map.channels_last ? sum_stretch<T, Activate, Keep>(args, part)
                           : sum_group<T, Activate, Keep>(args, part);
  }
  static void middle(const GroupNormArgs& args, int64_t sample, int64_t first_channel, int64_t channels) {
    if (args.map.channels_last) gather_sums(args, sample);
    const int64_t width = args.map.channels / args.groups;
    for (int64_t g = first_channel / width; g < (first_channel + channels) / width; ++g)
      finish_group(args, sample, g);
  }
  static void last(const GroupNormArgs& args, int64_t part) {
    gradient_part<T, Activate && !Keep>(args, part, Keep ? args.out : args.gradient);
  }
};

void group_norm_silu_backward(const GroupNormArgs& args, Phase phase, int64_t begin, int64_t end) {
  if (!args.activate) {
    with_element(args.map.element, [&](auto type) {
      run_phase<Backward<decltype(type), false, false>>(args, phase, begin, end);
    });
  } else if (args.map.element == Element::f32) {
    run_phase<Backward<F32, true, true>>(args, phase, begin, end);
  } else if (args.map.element == Element::f16) {
    run_phase<Backward<F16, true, false>>(args, phase, begin, end);
  } else {
    run_phase<Backward<BF16, true, false>>(args, phase, begin, end);
  }
}

}  // namespace fastdiff::FASTDIFF_ISA
