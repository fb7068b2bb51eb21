// rms_norm_silu and its gradient, see fastdiff/ops/rms_norm_silu.py. A unit is a stretch of pixels of one
// sample; a strip of it is small enough to stay in the first or second cache between the norm and its use.
#include "channel_factors.h"
#include "elements.h"
#include "entries.h"
#include "silu.h"

namespace fastdiff::FASTDIFF_ISA {

constexpr int kStrip = 64;      // pixels
constexpr int kSumPixels = 16;  // pixels that are added up before they join a longer sum

struct Stretch {
  int64_t sample, first, pixels;

  Stretch(const FeatureMap& map, int64_t index) {
    const int64_t per_sample = units_per_sample(map), size = pixels_per_unit(map);
    sample = index / per_sample;
    first = index % per_sample * size;
    pixels = map.pixels - first < size ? map.pixels - first : size;
  }
};

// From sums of squares to 1 / max(norm, eps), and the same where the norm is above eps, else 0.
static inline Floats reciprocal_norm(Floats squares, float eps) {
  const Floats norm = unless_infinite(square_root(squares));
  return 1.0f / (norm < eps ? broadcast(eps) : norm);  // NaN stays NaN
}
static inline Floats norm_slope(Floats squares, float eps) {
  const Floats norm = square_root(squares);
  return norm > eps ? 1.0f / norm : Floats{};
}

// Gains (with the factor sqrt(C)) and offsets of one sample, (2, C), in the unit of what they make.
struct Factors {
  float *gain, *offset;

  Factors(const RmsNormArgs& args, int64_t sample, float* buffer, float unit = 1.0f)
      : gain(buffer), offset(buffer + args.map.channels) {
    const float root = unit * static_cast<float>(__builtin_sqrt(static_cast<double>(args.map.channels)));
    for (int64_t c = 0; c < args.map.channels; ++c) {
      const ChannelFactor factor = channel_factor(args.factors, sample, c);
      gain[c] = factor.gain * root;
      offset[c] = unit * factor.offset;
    }
  }
};

// Sums of squares of `count` pixels, channels innermost.
template <class T>
static void square_sums(const typename T::Raw* x, int64_t channels, int count, float* sums) {
  for (int p = 0; p < count; ++p, x += channels) {
    Floats even{}, odd{};
    int64_t c = 0;
    for (; c + 2 * kLanes <= channels; c += 2 * kLanes) {
      const Floats a = T::load_all(x + c), b = T::load_all(x + c + kLanes);
      even += a * a;
      odd += b * b;
    }
    each_vector(channels - c, [&](int64_t i, auto access) {
      const Floats a = access.template get<T>(x + c + i);
      even += a * a;
    });
    sums[p] = sum_of_lanes(even + odd);
  }
}

// Asks for the same place of the next strip and for lines of the result, so that memory is busy while this
// strip is computed.
template <class T, bool Activate>
static void apply_pixel(const typename T::Raw* x, int64_t channels, float reciprocal, const Factors& factors,
                        typename T::Raw* out) {
  constexpr int64_t kAhead = 1024 / sizeof(typename T::Raw);  // elements
  each_vector(channels, [&](int64_t c, auto access) {
    __builtin_prefetch(x + c + kStrip * channels);
    __builtin_prefetch(out + c + kAhead);
    const Floats normalised = access.template get<T>(x + c) * reciprocal;
    const Floats u = normalised * access.template get<F32>(factors.gain + c) +
                     access.template get<F32>(factors.offset + c);
    access.template put<T>(out + c, Activate ? silu_scaled(u) : u);
  });
}

template <class T, bool Activate>
static void forward_channels_last(const RmsNormArgs& args, const Stretch& stretch, const Factors& factors) {
  using Raw = typename T::Raw;
  const int64_t channels = args.map.channels;
  alignas(64) float norms[kStrip] = {};
  for (int64_t p = 0; p < stretch.pixels; p += kStrip) {
    const int count = static_cast<int>(stretch.pixels - p < kStrip ? stretch.pixels - p : kStrip);
    const int64_t at = (stretch.sample * args.map.pixels + stretch.first + p) * channels;
    const Raw* x = static_cast<const Raw*>(args.x) + at;
    Raw* out = static_cast<Raw*>(args.out) + at;
    square_sums<T>(x, channels, count, norms);
    for (int i = 0; i < count; i += kLanes) store(norms + i, reciprocal_norm(load(norms + i), args.eps));
    for (int i = 0; i < count; ++i)
      apply_pixel<T, Activate>(x + i * channels, channels, norms[i], factors, out + i * channels);
  }
}

// V vectors of pixels, pixels innermost.
template <class T, int V, bool Activate, class Access>
static inline __attribute__((always_inline)) void forward_strip(const typename T::Raw* x,
                                                                const FeatureMap& map, Access access,
                                                                float eps, const Factors& factors,
                                                                typename T::Raw* out) {
  Floats norm[V] = {};
  for (int64_t c = 0; c < map.channels; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Floats a = access.template get<T>(x + c * map.pixels + v * kLanes);
      norm[v] += a * a;
    }
  }
  for (int v = 0; v < V; ++v) norm[v] = reciprocal_norm(norm[v], eps);
  for (int64_t c = 0; c < map.channels; ++c) {
    const Floats gain = broadcast(factors.gain[c]), offset = broadcast(factors.offset[c]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const int64_t at = c * map.pixels + v * kLanes;
      const Floats u = (access.template get<T>(x + at) * norm[v]) * gain + offset;
      access.template put<T>(out + at, Activate ? silu_scaled(u) : u);
    }
  }
}

template <class T, bool Activate>
static void forward_planes(const RmsNormArgs& args, const Stretch& stretch, const Factors& factors) {
  using Raw = typename T::Raw;
  const int64_t start = stretch.sample * args.map.channels * args.map.pixels + stretch.first;
  const Raw* x = static_cast<const Raw*>(args.x) + start;
  Raw* out = static_cast<Raw*>(args.out) + start;
  int64_t p = 0;
  for (; p + 4 * kLanes <= stretch.pixels; p += 4 * kLanes)
    forward_strip<T, 4, Activate>(x + p, args.map, All{}, args.eps, factors, out + p);
  each_vector(stretch.pixels - p, [&](int64_t i, auto access) {
    forward_strip<T, 1, Activate>(x + p + i, args.map, access, args.eps, factors, out + p + i);
  });
}

template <class T, bool Activate>
static void forward(const RmsNormArgs& args, float* scratch, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Stretch stretch(args.map, index);
    const Factors factors(args, stretch.sample, scratch, Activate ? kSiluScale : 1.0f);
    if (args.map.channels_last)
      forward_channels_last<T, Activate>(args, stretch, factors);
    else
      forward_planes<T, Activate>(args, stretch, factors);
  }
}

void rms_norm_silu(const RmsNormArgs& args, float* scratch, int64_t begin, int64_t end) {
  with_element(args.map.element, [&](auto type) {
    using T = decltype(type);
    args.activate ? forward<T, true>(args, scratch, begin, end)
                  : forward<T, false>(args, scratch, begin, end);
  });
}

// The backward pass. With du the gradient before the activation, n = x / max(norm, eps) and r = 1 / norm:
//   dx = r * (gain * du - n * sum_C(gain * du * n)), without the second term where the norm is clamped;
//   sums over pixels of du and of du * n.

// One pixel, channels innermost; `du` holds gain * du, `sums` (2, C) is added to.
template <class T, bool Activate>
static void gradient_pixel(const typename T::Raw* x, const typename T::Raw* gradient, int64_t channels,
                           float reciprocal, float slope, const Factors& factors, float* du, float* sums,
                           typename T::Raw* out) {
  Floats dot{};
  each_vector(channels, [&](int64_t c, auto access) {
    const Floats n = access.template get<T>(x + c) * reciprocal;
    const Floats gain = access.template get<F32>(factors.gain + c);
    Floats d = access.template get<T>(gradient + c);
    if (Activate) d *= silu_slope(n * gain + access.template get<F32>(factors.offset + c));
    access.template put<F32>(sums + c, access.template get<F32>(sums + c) + d);
    access.template put<F32>(sums + channels + c, access.template get<F32>(sums + channels + c) + d * n);
    d *= gain;
    dot += d * n;
    access.template put<F32>(du + c, d);
  });
  const float back = -(sum_of_lanes(dot) * slope) * reciprocal;
  each_vector(channels, [&](int64_t c, auto access) {
    const Floats d = access.template get<F32>(du + c) * reciprocal;
    access.template put<T>(out + c, d + access.template get<T>(x + c) * back);
  });
}

template <class T, bool Activate>
static void backward_channels_last(const RmsNormArgs& args, const Stretch& stretch, const Factors& factors,
                                   float* du, float* block, float* sums) {
  using Raw = typename T::Raw;
  const int64_t channels = args.map.channels;
  alignas(64) float norms[kStrip] = {}, slopes[kStrip];
  for (int64_t p = 0; p < stretch.pixels; p += kStrip) {
    const int count = static_cast<int>(stretch.pixels - p < kStrip ? stretch.pixels - p : kStrip);
    const int64_t at = (stretch.sample * args.map.pixels + stretch.first + p) * channels;
    const Raw *x = static_cast<const Raw*>(args.x) + at,
              *gradient = static_cast<const Raw*>(args.gradient) + at;
    Raw* out = static_cast<Raw*>(args.out) + at;
    square_sums<T>(x, channels, count, norms);
    for (int i = 0; i < count; i += kLanes) {
      store(slopes + i, norm_slope(load(norms + i), args.eps));
      store(norms + i, reciprocal_norm(load(norms + i), args.eps));
    }
    for (int i = 0; i < count; i += kSumPixels) {
      for (int64_t c = 0; c < 2 * channels; ++c) block[c] = 0.0f;
      for (int k = i; k < count && k < i + kSumPixels; ++k)
        gradient_pixel<T, Activate>(x + k * channels, gradient + k * channels, channels, norms[k], slopes[k],
                                    factors, du, block, out + k * channels);
      for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += block[c];
    }
  }
}

// V vectors of pixels, pixels innermost; `du` holds gain * du, (C, V); `sums` (2, C) vectors, added to.
template <class T, int V, bool Activate, class Access>
static inline __attribute__((always_inline)) void gradient_strip(const typename T::Raw* x,
                                                                 const typename T::Raw* gradient,
                                                                 const RmsNormArgs& args, Access access,
                                                                 const Factors& factors, float* du,
                                                                 float* sums, typename T::Raw* out) {
  const int64_t channels = args.map.channels, pixels = args.map.pixels;
  Floats norm[V] = {}, slope[V], dot[V] = {};
  for (int64_t c = 0; c < channels; ++c) {
    for (int v = 0; v < V; ++v) {
      const Floats a = access.template get<T>(x + c * pixels + v * kLanes);
      norm[v] += a * a;
    }
  }
  for (int v = 0; v < V; ++v) {
    slope[v] = norm_slope(norm[v], args.eps);
    norm[v] = reciprocal_norm(norm[v], args.eps);
  }
  for (int64_t c = 0; c < channels; ++c) {
    const Floats gain = broadcast(factors.gain[c]), offset = broadcast(factors.offset[c]);
    Floats sum{}, along{};
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      const int64_t at = c * pixels + v * kLanes;
      const Floats n = access.template get<T>(x + at) * norm[v];
      Floats d = access.template get<T>(gradient + at);
      if (Activate) d *= silu_slope(n * gain + offset);
      sum += d;
      along += d * n;
      d *= gain;
      dot[v] += d * n;
      store(du + (c * V + v) * kLanes, d);
    }
    float *total = sums + c * kLanes, *total_along = sums + (channels + c) * kLanes;
    store(total, load(total) + sum);
    store(total_along, load(total_along) + along);
  }
  for (int v = 0; v < V; ++v) dot[v] *= -slope[v] * norm[v];
  for (int64_t c = 0; c < channels; ++c) {
    for (int v = 0; v < V; ++v) {
      const int64_t at = c * pixels + v * kLanes;
      const Floats d = load(du + (c * V + v) * kLanes) * norm[v];
      access.template put<T>(out + at, d + access.template get<T>(x + at) * dot[v]);
    }
  }
}

template <class T, bool Activate>
static void backward_planes(const RmsNormArgs& args, const Stretch& stretch, const Factors& factors,
                            float* du, float* lane_sums, float* sums) {
  using Raw = typename T::Raw;
  const int64_t start = stretch.sample * args.map.channels * args.map.pixels + stretch.first;
  const Raw* x = static_cast<const Raw*>(args.x) + start;
  const Raw* gradient = static_cast<const Raw*>(args.gradient) + start;
  Raw* out = static_cast<Raw*>(args.out) + start;
  for (int64_t i = 0; i < 2 * args.map.channels; ++i) store(lane_sums + i * kLanes, Floats{});
  int64_t p = 0;
  for (; p + 2 * kLanes <= stretch.pixels; p += 2 * kLanes)
    gradient_strip<T, 2, Activate>(x + p, gradient + p, args, All{}, factors, du, lane_sums, out + p);
  each_vector(stretch.pixels - p, [&](int64_t i, auto access) {
    gradient_strip<T, 1, Activate>(x + p + i, gradient + p + i, args, access, factors, du, lane_sums,
                                   out + p + i);
  });
  for (int64_t i = 0; i < 2 * args.map.channels; ++i) sums[i] = sum_of_lanes(load(lane_sums + i * kLanes));
}

template <class T, bool Activate>
static void backward(const RmsNormArgs& args, float* scratch, int64_t begin, int64_t end) {
  const int64_t channels = args.map.channels;
  float *du = scratch + 2 * channels, *lane_sums = du + 2 * kLanes * channels;
  for (int64_t index = begin; index < end; ++index) {
    const Stretch stretch(args.map, index);
    const Factors factors(args, stretch.sample, scratch);
    float* sums = args.sums + index * 2 * channels;
    if (args.map.channels_last) {
      for (int64_t i = 0; i < 2 * channels; ++i) sums[i] = 0.0f;
      backward_channels_last<T, Activate>(args, stretch, factors, du, lane_sums, sums);
    } else {
      backward_planes<T, Activate>(args, stretch, factors, du, lane_sums, sums);
    }
  }
}

void rms_norm_silu_backward(const RmsNormArgs& args, float* scratch, int64_t begin, int64_t end) {
  with_element(args.map.element, [&](auto type) {
    using T = decltype(type);
    args.activate ? backward<T, true>(args, scratch, begin, end)
                  : backward<T, false>(args, scratch, begin, end);
  });
}

}  // namespace fastdiff::FASTDIFF_ISA
