// What a convolution does to its input: x * pixel * factor + offset of the channel, then SiLU.
#pragma once

#include "elements.h"
#include "fastdiff/conv3x3.h"
#include "silu.h"

namespace fastdiff::FASTDIFF_ISA {

enum class Norm : int { none, channels, pixels };

// f(norm, activate) with both as constants of the compiler.
template <Norm value>
struct NormIs {
  static constexpr Norm norm = value;
};
template <bool value>
struct ActivateIs {
  static constexpr bool activate = value;
};
template <class F>
static inline void with_norm(const Conv3x3Args& args, const F& f) {
  const auto activated = [&](auto norm) {
    args.activate ? f(norm, ActivateIs<true>{}) : f(norm, ActivateIs<false>{});
  };
  if (!args.factors)
    activated(NormIs<Norm::none>{});
  else if (!args.pixel)
    activated(NormIs<Norm::channels>{});
  else
    activated(NormIs<Norm::pixels>{});
}

}  // namespace fastdiff::FASTDIFF_ISA
