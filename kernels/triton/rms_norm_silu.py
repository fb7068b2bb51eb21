"""rms_norm_silu: one read and one write; backward two reads, one write and sums of stretches of pixels.

A program holds all channels of some pixels, so the norm needs nobody else. See `fastdiff.ops.rms_norm_silu`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

import triton
import triton.language as tl

from .launching import register
from .maps import (
    Layout,
    activated,
    before_activation,
    factor_of,
    factors_of,
    layout_of,
    map_of,
    offset_of,
    place,
    power,
    unless_infinite,
)
from .sums import finished, loaded, places, sums_taken, terms_of


@triton.jit
def lengths(values, eps):
    """(norm over the channels of each pixel, 1 / norm or 1 / eps)."""
    norm = unless_infinite(tl.sqrt_rn(tl.sum(values * values, 0)))
    return norm, 1.0 / tl.maximum(norm, eps, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def rms_norm_silu_kernel(
    out,  # a map
    total,  # a map: where s, which is normalised, is written, or none
    terms,
    factors,  # without a bias
    channels,
    pixels,
    tiles,  # of one sample
    eps,
    root,  # of the number of channels
    ACTIVATE: tl.constexpr,
    AFTER: tl.constexpr,  # the residual is added to the result
    WIDE: tl.constexpr,  # a sample needs 64 bits
    CHANNELS: tl.constexpr,  # a power of two
    PIXELS: tl.constexpr,
):
    """One program normalises PIXELS pixels of one sample."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    c, first = tl.arange(0, CHANNELS), (program % tiles) * PIXELS
    c = c.to(tl.int64) if WIDE else c
    p = (first.to(tl.int64) if WIDE else first) + tl.arange(0, PIXELS)
    wanted = c < channels
    inside = wanted[:, None] & (p < pixels)[None, :]
    x_at, r_at, x2_at = places(terms, sample, c, p)
    values = loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER)
    if total.data is not None:
        tl.store(total.data + place(total, sample, c, p), values, mask=inside)
    _, reciprocal = lengths(values, eps)
    n = values * reciprocal[None, :]
    factor = root * factor_of(factors, sample, c, wanted)
    y = activated(n * factor[:, None] + offset_of(factors, sample, c, wanted)[:, None], ACTIVATE)
    y = finished(y, terms, r_at, sample, c, wanted, inside, AFTER)
    tl.store(out.data + place(out, sample, c, p), y, mask=inside)


@triton.jit
def rms_norm_silu_backward_kernel(
    out,  # the gradient of x
    sums,  # float32 (B, units, 2, C): of du, of du * n
    gradient,  # of the result; lies like x, and so does out
    x,  # a map
    factors,
    channels,
    pixels,
    units,
    unit,  # pixels of one
    eps,
    root,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """One program takes one unit of one sample, PIXELS pixels at a time."""
    program = tl.program_id(0)
    sample, c = (program // units).to(tl.int64), tl.arange(0, CHANNELS)
    begin = (program % units) * unit
    c = c.to(tl.int64) if WIDE else c
    wanted = c < channels
    factor = root * factor_of(factors, sample, c, wanted)
    offset = offset_of(factors, sample, c, wanted)
    plain, along = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for first in range(begin, tl.minimum(begin + unit, pixels), PIXELS):
        p = (first.to(tl.int64) if WIDE else first) + tl.arange(0, PIXELS)
        inside = wanted[:, None] & (p < pixels)[None, :]
        at = place(x, sample, c, p)
        values = tl.load(x.data + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        norm, reciprocal = lengths(values, eps)
        n = values * reciprocal[None, :]
        du = before_activation(dy, n * factor[:, None] + offset[:, None], ACTIVATE)
        plain += tl.sum(du, 1)
        along += tl.sum(du * n, 1)
        dn = du * factor[:, None]
        shared = tl.where(norm < eps, 0.0, tl.sum(dn * n, 0))  # below eps the norm is a constant
        tl.store(out + at, reciprocal[None, :] * (dn - n * shared[None, :]), mask=inside)
    row = sums + (sample * units + program % units) * 2 * channels
    tl.store(row + c, plain, mask=wanted)
    tl.store(row + channels + c, along, mask=wanted)


class Tile(NamedTuple):
    """What a program holds at a time: powers of two, and its warps."""

    channels: int
    pixels: int
    warps: int

    @property
    def compiled_in(self) -> dict[str, int]:
        """What a kernel is compiled for."""
        return {"CHANNELS": self.channels, "PIXELS": self.pixels, "num_warps": self.warps}


def tile_of(layout: Layout, size: int, of_thread: int, forward: bool = True) -> Tile:
    """128 threads, or more where channels are many and 16 to 64 bytes of neighbouring pixels should be read at once.

    Args:
        layout: the map.
        size: bytes of an element.
        of_thread: elements of a thread.
        forward: not the gradient.
    """
    channels = power(layout.channels)
    if layout.last:
        least = 16 if forward else 1  # the factors are read once for so many pixels; the gradient keeps them
    else:
        least = (64 if channels <= 256 else 32 if forward or channels <= 512 else 16) // size
    pixels = min(max(128 * of_thread // channels, least), power(layout.pixels))
    return Tile(channels, pixels, min(16, max(1, channels * pixels // (32 * of_thread))))


#: Elements of a thread, forward, with sums, and backward.
OF_THREAD, OF_THREAD_OF_SUMS, OF_THREAD_BACKWARD = 32, 16, 16


def launch(out: Tensor, x: Tensor, *given: Any) -> None:
    """Write y into out, which lies like x; see `fastdiff.ops.rms_norm_silu`."""
    launch_sums(out, None, x, None, None, None, None, *given, False)


def launch_sums(
    out: Tensor,
    total: Tensor | None,
    x: Tensor,
    add: Tensor | None,
    residual: Tensor | None,
    residual_add: Tensor | None,
    x2: Tensor | None,
    weight: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
    after: bool,
) -> None:
    """The same of a sum, which goes into `total` unless that is None; see `fastdiff.ops.norm_sums`."""
    if out.numel() == 0:
        return
    terms, factors = terms_of(x, add, residual, residual_add, x2), factors_of(weight, None, scale, shift)
    layout, sums = sums_taken(x, out, terms)
    tile = tile_of(layout, x.element_size(), OF_THREAD_OF_SUMS if sums else OF_THREAD)
    tiles = -(-layout.pixels // tile.pixels)
    with torch.cuda.device_of(x):
        rms_norm_silu_kernel[(layout.batch * tiles,)](
            *(map_of(out), map_of(total), terms, factors),
            *(layout.channels, layout.pixels, tiles, eps, math.sqrt(layout.channels)),
            ACTIVATE=activate,
            AFTER=after,
            WIDE=layout.wide,
            **tile.compiled_in,
        )


def launch_backward(
    out: Tensor,
    sums: Tensor,
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> None:
    """Write the gradient of x into out and the sums of each unit into sums (B, units, 2, C)."""
    if x.numel() == 0:
        sums.zero_()
        return
    layout, units = layout_of(x), sums.shape[1]
    tile = tile_of(layout, x.element_size(), OF_THREAD_BACKWARD, forward=False)
    unit = math.ceil(layout.pixels / units / tile.pixels) * tile.pixels
    with torch.cuda.device_of(x):
        rms_norm_silu_backward_kernel[(layout.batch * units,)](
            *(out, sums, gradient, map_of(x), factors_of(weight, None, scale, shift)),
            *(layout.channels, layout.pixels, units, unit, eps, math.sqrt(layout.channels)),
            ACTIVATE=activate,
            WIDE=layout.wide,
            **tile.compiled_in,
        )


register(
    "rms_norm_silu_triton(Tensor(a!) out, Tensor x, Tensor? weight, Tensor? scale, Tensor? shift, float eps, "
    "bool activate) -> ()",
    launch,
)
register(
    "rms_norm_silu_of_sum_triton(Tensor(a!) out, Tensor(b!)? total, Tensor x, Tensor? add, Tensor? residual, "
    "Tensor? residual_add, Tensor? x2, Tensor? weight, Tensor? scale, Tensor? shift, float eps, bool activate, "
    "bool after) -> ()",
    launch_sums,
)
register(
    "rms_norm_silu_backward_triton(Tensor(a!) out, Tensor(b!) sums, Tensor gradient, Tensor x, Tensor? weight, "
    "Tensor? scale, Tensor? shift, float eps, bool activate) -> ()",
    launch_backward,
)
