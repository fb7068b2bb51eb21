"""Feature maps (B, C, ...) and rows of channels as the normalisations read them.

A kernel takes each as one argument, a tuple of an address (None where it is not given) and its strides in elements.
Triton compiles None and a stride of 1 in as constants.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import triton
import triton.language as tl


class Layout(NamedTuple):
    """Sizes of a dense map, and its strides of a sample, a channel and a pixel (one of the last two is 1)."""

    batch: int
    channels: int
    pixels: int
    sample: int
    channel: int
    pixel: int

    @property
    def last(self) -> bool:
        """Whether channels are innermost."""
        return self.channel == 1

    @property
    def wide(self) -> bool:
        """Whether places within a sample need 64 bits."""
        return self.sample >= 2**31

    def of_channels(self, channels: int) -> Layout:
        """The same order with another number of channels."""
        sample = channels * self.pixels
        strides = (sample, 1, channels) if self.last else (sample, self.pixels, 1)
        return Layout(self.batch, channels, self.pixels, *strides)


class Map(NamedTuple):
    """A map (B, C, pixels), or none: its address, and its strides of a sample, a channel and a pixel."""

    data: Tensor | None
    sample: int
    channel: int
    pixel: int


class Rows(NamedTuple):
    """Values (B, C), their rows `stride` apart, or (C,), which is a stride of 0; or none."""

    data: Tensor | None
    stride: int


class Factors(NamedTuple):
    """What a norm is multiplied with, and what is added: weight and bias (C,), scale and shift (B, C)."""

    weight: Tensor | None
    bias: Tensor | None
    scale: Rows
    shift: Rows


def layout_of(x: Tensor) -> Layout:
    """The layout of a contiguous or channels_last tensor."""
    batch, channels = x.shape[:2]
    pixels = x.shape[2:].numel()
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    if pixels == 1 or (x.dim() in (4, 5) and not x.is_contiguous() and x.is_contiguous(memory_format=last)):
        return Layout(batch, channels, pixels, channels * pixels, 1, channels)
    return Layout(batch, channels, pixels, channels * pixels, pixels, 1)


def map_of(x: Tensor | None) -> Map:
    """A contiguous or channels_last tensor, or None."""
    return Map(None, 0, 0, 0) if x is None else Map(x, *layout_of(x)[3:])


def rows_of(rows: Tensor | None) -> Rows:
    """A tensor (B, C) or (C,), or None."""
    return Rows(rows, 0 if rows is None or rows.dim() == 1 else rows.stride(0))


def factors_of(
    weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> Factors:
    """The factors of an op."""
    return Factors(weight, bias, rows_of(scale), rows_of(shift))


def power(n: int) -> int:
    """The lowest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


@triton.jit
def place(m, sample, c, p):
    """Where channels c x pixels p of one sample of a map lie."""
    return sample * m.sample + (c[:, None] * m.channel + p[None, :] * m.pixel)


@triton.jit
def row_of(rows, sample, c, wanted):
    """The channels c of one sample's row as float32."""
    return tl.load(rows.data + sample * rows.stride + c, mask=wanted, other=0.0).to(tl.float32)


@triton.jit
def factor_of(factors, sample, c, wanted):
    """weight * (1 + scale) of the channels c of one sample."""
    factor = tl.where(wanted, 1.0, 0.0)
    if factors.weight is not None:
        factor = factor * tl.load(factors.weight + c, mask=wanted, other=0.0).to(tl.float32)
    if factors.scale.data is not None:
        factor = factor * (1.0 + row_of(factors.scale, sample, c, wanted))
    return factor


@triton.jit
def offset_of(factors, sample, c, wanted):
    """bias * (1 + scale) + shift of the channels c of one sample."""
    offset = tl.where(wanted, 0.0, 0.0)
    if factors.bias is not None:
        offset += tl.load(factors.bias + c, mask=wanted, other=0.0).to(tl.float32)
        if factors.scale.data is not None:
            offset = offset * (1.0 + row_of(factors.scale, sample, c, wanted))
    if factors.shift.data is not None:
        offset += row_of(factors.shift, sample, c, wanted)
    return offset


@triton.jit
def unless_infinite(value):
    """A variance or a norm, NaN where squares do not fit float32: 1 / infinity would leave a finite, wrong result."""
    return value + (value - value)


@triton.jit
def activated(u, ACTIVATE: tl.constexpr):
    """u * sigmoid(u), or u."""
    if ACTIVATE:
        u = u / (1.0 + tl.exp(-u))
    return u


@triton.jit
def before_activation(gradient, u, ACTIVATE: tl.constexpr):
    """The gradient of u from that of `activated(u)`."""
    if ACTIVATE:
        sigmoid = 1.0 / (1.0 + tl.exp(-u))
        gradient = gradient * (sigmoid * (1.0 + u * (1.0 - sigmoid)))
    return gradient
