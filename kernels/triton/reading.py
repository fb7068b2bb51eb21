"""How kernels read tensors: dense ones in 128-bit pieces, others by channel and pixel strides."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def places(at, sample, strides_sample, strides_channel, strides_pixel, pixels, DENSE: tl.constexpr):
    """Offsets of the elements `at` of one sample; at counts row-major through (channel, pixel)."""
    if DENSE:
        inner = at
    else:
        inner = (at // pixels) * strides_channel + (at % pixels) * strides_pixel
    return sample * strides_sample + inner


@triton.jit
def read(source, offsets, wanted):
    """float32 values, 0 where not wanted (nothing is read there) or where there is no source."""
    if source is not None:
        values = tl.load(source + offsets, mask=wanted, other=0.0).to(tl.float32)
    else:
        values = tl.zeros(offsets.shape, tl.float32)
    return values


@triton.jit
def term(coefficient, values):
    """coefficient * values, and 0 where the coefficient is 0, whatever the values are."""
    return tl.where(coefficient == 0, 0.0, coefficient * values)


@triton.jit
def used(coefficient):
    """Whether a scalar coefficient is not 0, as an integer comparison: the interpreter cannot broadcast the other."""
    return tl.where(coefficient == 0, 0, 1) > 0
