"""rms_norm_silu: one read and one write; backward two reads, one write and sums of stretches of pixels.

A program holds all channels of some pixels, so the norm needs nobody else. See `fastdiff.ops.rms_norm_silu`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

import triton
import triton.language as tl

from .launching import register
from .maps import Map, activated, before_activation, factor_of, map_of, offset_of, place, power, row_stride
from .sums import Summed, finished, loaded, summed


@triton.jit
def rms_norm_silu_kernel(
    out,  # (B, C, pixels)
    total,  # s, the map that is normalised; None where nobody else reads it
    x,
    add,  # (C,) or (B, C), or None; so is residual_add
    residual,  # (B, C, pixels) or None
    residual_add,
    x2,  # (B, C - split, pixels) or None
    weight,  # (C,) or None
    scale,  # (B, C), rows scale_stride apart, or None; so is shift
    shift,
    add_stride,
    residual_add_stride,
    scale_stride,
    shift_stride,
    x_sample,
    x_channel,
    x_pixel,
    r_sample,
    r_channel,
    r_pixel,
    x2_sample,
    x2_channel,
    x2_pixel,
    out_sample,
    out_channel,
    out_pixel,
    total_sample,
    total_channel,
    total_pixel,
    split,  # channels of x
    channels,
    pixels,
    tiles,  # of one sample
    eps,
    root,  # of the number of channels
    ACTIVATE: tl.constexpr,
    AFTER: tl.constexpr,  # residual is added to the result
    WIDE: tl.constexpr,  # a sample needs 64 bits
    CHANNELS: tl.constexpr,  # a power of two
    PIXELS: tl.constexpr,
):
    """One program normalises PIXELS pixels of one sample."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    c, first = tl.arange(0, CHANNELS), (program % tiles) * PIXELS
    p = (first.to(tl.int64) if WIDE else first) + tl.arange(0, PIXELS)
    wanted = c < channels
    inside = wanted[:, None] & (p < pixels)[None, :]
    r_at = place(sample, r_sample, c, r_channel, p, r_pixel)
    values = loaded(
        x, add, residual, residual_add, x2, place(sample, x_sample, c, x_channel, p, x_pixel), r_at,
        place(sample, x2_sample, c - split, x2_channel, p, x2_pixel), split, sample, add_stride,
        residual_add_stride, c, wanted, inside, AFTER,
    )  # fmt: skip
    if total is not None:
        tl.store(total + place(sample, total_sample, c, total_channel, p, total_pixel), values, mask=inside)
    norm = tl.sqrt_rn(tl.sum(values * values, 0))
    n = values * (1.0 / tl.maximum(norm, eps, propagate_nan=tl.PropagateNan.ALL))[None, :]
    factor = root * factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(None, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    y = activated(n * factor[:, None] + offset[:, None], ACTIVATE)
    y = finished(
        y, residual, residual_add, r_at, sample, residual_add_stride, c, wanted, inside, AFTER
    )  # fmt: skip
    tl.store(out + place(sample, out_sample, c, out_channel, p, out_pixel), y, mask=inside)


@triton.jit
def rms_norm_silu_backward_kernel(
    out,  # the gradient of x
    sums,  # float32 (B, units, 2, C): of du, of du * n
    gradient,  # of the result, like x
    x,
    weight,
    scale,
    shift,
    scale_stride,
    shift_stride,
    x_sample,
    x_channel,
    x_pixel,
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
    wanted = c < channels
    factor = root * factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(None, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    plain, along = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for first in range(begin, tl.minimum(begin + unit, pixels), PIXELS):
        p = (first.to(tl.int64) if WIDE else first) + tl.arange(0, PIXELS)
        inside = wanted[:, None] & (p < pixels)[None, :]
        at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        norm = tl.sqrt_rn(tl.sum(values * values, 0))
        reciprocal = 1.0 / tl.maximum(norm, eps, propagate_nan=tl.PropagateNan.ALL)
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


def tile_of(layout: Map, size: int, of_thread: int, forward: bool = True) -> Tile:
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


def launch(
    out: Tensor,
    x: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> None:
    """Write y into out, which lies like x; see `fastdiff.ops.rms_norm_silu`."""
    terms = summed(out, None, x, None, None, None, None)
    _launch(out, None, x, terms, (weight, scale, shift), eps, activate, False)


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
    terms = summed(out, total, x, add, residual, residual_add, x2)
    _launch(out, total, x, terms, (weight, scale, shift), eps, activate, after)


def _launch(
    out: Tensor,
    total: Tensor | None,
    x: Tensor,
    terms: Summed,
    factors: tuple[Tensor | None, ...],
    eps: float,
    activate: bool,
    after: bool,
) -> None:
    if out.numel() == 0:
        return
    layout = terms.layout
    plain = terms.plain and terms.out == layout.strides
    tile = tile_of(layout, x.element_size(), OF_THREAD if plain else OF_THREAD_OF_SUMS)
    tiles = -(-layout.pixels // tile.pixels)
    with torch.cuda.device_of(x):
        rms_norm_silu_kernel[(layout.batch * tiles,)](
            *(out, total, x, *terms.tensors, *factors),
            *(*terms.rows, row_stride(factors[1]), row_stride(factors[2])),
            *(*terms.x, *terms.residual, *terms.x2, *terms.out, *terms.total, terms.first),
            *(layout.channels, layout.pixels, tiles, eps, math.sqrt(layout.channels)),
            ACTIVATE=activate,
            AFTER=after,
            WIDE=layout.sample >= 2**31,
            CHANNELS=tile.channels,
            PIXELS=tile.pixels,
            num_warps=tile.warps,
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
    layout, units = map_of(x), sums.shape[1]
    tile = tile_of(layout, x.element_size(), OF_THREAD_BACKWARD, forward=False)
    unit = math.ceil(layout.pixels / units / tile.pixels) * tile.pixels
    with torch.cuda.device_of(x):
        rms_norm_silu_backward_kernel[(layout.batch * units,)](
            *(out, sums, gradient, x, weight, scale, shift, row_stride(scale), row_stride(shift)),
            *(*layout.strides, layout.channels, layout.pixels, units, unit, eps, math.sqrt(layout.channels)),
            ACTIVATE=activate,
            WIDE=layout.sample >= 2**31,
            CHANNELS=tile.channels,
            PIXELS=tile.pixels,
            num_warps=tile.warps,
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
