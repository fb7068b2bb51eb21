// group_norm_silu, see fastdiff/ops/group_norm_silu.py. How the work is cut up stands in fastdiff/norms.h; a
// group, or with channels last usually a sample, stays in cache between the pass that measures it and the
// pass that writes.
#include "entries.h"
#include "group_norm.h"
#include "moments.h"
#include "silu.h"

namespace fastdiff::FASTDIFF_ISA {

static void finish_statistics(const GroupNormArgs& args, const Spread& all, float* statistics) {
  const double variance = unless_infinite(all.squares / all.count);
  statistics[k_mean] = static_cast<float>(all.mean);
  statistics[k_mean_rest] = static_cast<float>(all.mean - statistics[k_mean]);
  statistics[k_reciprocal] = static_cast<float>(1.0 / __builtin_sqrt(variance + args.eps));
}

static Moments moments_of(const GroupNormArgs& args, int64_t part) {
  float* start = args.partials + part * kGroupNormPartials * args.map.channels;
  return {start, start + args.map.channels, start + 2 * args.map.channels};
}

template <class T>
static void measure(const GroupNormArgs& args, int64_t index) {
  const Part part(args, index);
  const auto* x = static_cast<const typename T::Raw*>(args.x) + part.start;
  if (args.map.channels_last)
    column_moments<T>(x, part.pixels, args.map.channels, args.map.channels, moments_of(args, index));
  else
    finish_statistics(args, spread_of_array<T>(x, part.channels * part.pixels),
                      args.statistics + index * k_statistics);
}

// From the moments of a sample's parts to its statistics; the first part's moments become those of all.
static void gather_statistics(const GroupNormArgs& args, int64_t sample) {
  const int64_t parts = parts_per_sample(args), width = args.map.channels / args.groups;
  const Moments all = moments_of(args, sample * parts);
  int64_t pixels = Part(args, sample * parts).pixels;
  for (int64_t i = sample * parts + 1; i < (sample + 1) * parts; ++i) {
    const int64_t more = Part(args, i).pixels;
    merge_columns(all, pixels, moments_of(args, i), more, args.map.channels);
    pixels += more;
  }
  for (int64_t g = 0; g < args.groups; ++g) {
    const Moments own{all.pivot + g * width, all.offset + g * width, all.squares + g * width};
    finish_statistics(args, spread_of(own, static_cast<int>(width), pixels),
                      args.statistics + (sample * args.groups + g) * k_statistics);
  }
}

template <class T, bool Activate>
static void apply_channel(const typename T::Raw* x, int64_t count, float center, float slope, float offset,
                          typename T::Raw* out) {
  each_vector(count, [=](int64_t i, auto access) {
    const Floats u = (access.template get<T>(x + i) - center) * slope + offset;
    access.template put<T>(out + i, Activate ? silu_scaled(u) : u);
  });
}

template <class T, bool Activate>
static void apply_pixel(const typename T::Raw* x, int64_t count, Affine affine, typename T::Raw* out) {
  each_vector(count, [=](int64_t c, auto access) {
    const Floats e = access.template get<T>(x + c) - access.template get<F32>(affine.center + c);
    const Floats u =
        e * access.template get<F32>(affine.slope + c) + access.template get<F32>(affine.offset + c);
    access.template put<T>(out + c, Activate ? silu_scaled(u) : u);
  });
}

template <class T, bool Activate>
static void apply(const GroupNormArgs& args, int64_t index) {
  const Part part(args, index);
  const auto* x = static_cast<const typename T::Raw*>(args.x) + part.start;
  auto* out = static_cast<typename T::Raw*>(args.out) + part.start;
  const Affine a = affine_of(args, part.sample, part.first_channel);
  const int64_t channels = part.channels, pixels = part.pixels;
  if (args.map.channels_last) {
    for (int64_t p = 0; p < pixels; ++p)
      apply_pixel<T, Activate>(x + p * channels, channels, a, out + p * channels);
  } else {
    for (int64_t c = 0; c < channels; ++c)
      apply_channel<T, Activate>(x + c * pixels, pixels, a.center[c], a.slope[c], a.offset[c],
                                 out + c * pixels);
  }
}

template <class T, bool Activate>
struct Forward {
  static void prepare(const GroupNormArgs&, int64_t, int64_t) {}
  static void first(const GroupNormArgs& args, int64_t part) { measure<T>(args, part); }
  static void middle(const GroupNormArgs& args, int64_t sample, int64_t first_channel, int64_t channels) {
    if (args.map.channels_last) gather_statistics(args, sample);
    make_affine(args, sample, first_channel, channels, Activate ? kSiluScale : 1.0f);
  }
  static void last(const GroupNormArgs& args, int64_t part) { apply<T, Activate>(args, part); }
};

void group_norm_silu(const GroupNormArgs& args, Phase phase, int64_t begin, int64_t end) {
  with_element(args.map.element, [&](auto type) {
    using T = decltype(type);
    args.activate ? run_phase<Forward<T, true>>(args, phase, begin, end)
                  : run_phase<Forward<T, false>>(args, phase, begin, end);
  });
}

}  // namespace fastdiff::FASTDIFF_ISA
