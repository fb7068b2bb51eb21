"""Feature maps (B, C, ...) as the normalisations read them, and what belongs to their channels and groups."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import triton
import triton.language as tl


class Map(NamedTuple):
    """A dense map: strides of a sample, a channel and a pixel (one of the last two is 1), in elements."""

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
    def strides(self) -> tuple[int, int, int]:
        """Of a sample, a channel and a pixel."""
        return self.sample, self.channel, self.pixel


def map_of(x: Tensor) -> Map:
    """The map of a contiguous or channels_last tensor."""
    batch, channels = x.shape[:2]
    pixels = x.shape[2:].numel()
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    if pixels == 1 or (x.dim() in (4, 5) and not x.is_contiguous() and x.is_contiguous(memory_format=last)):
        return Map(batch, channels, pixels, channels * pixels, 1, channels)
    return Map(batch, channels, pixels, channels * pixels, pixels, 1)


def power(n: int) -> int:
    """The lowest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def row_stride(factor: Tensor | None) -> int:
    """Elements between the rows of a factor (B, C)."""
    return 0 if factor is None else factor.stride(0)


@triton.jit
def place(sample, sample_stride, c, channel_stride, p, pixel_stride):
    """Where channels c x pixels p of one sample lie."""
    return sample * sample_stride + (c[:, None] * channel_stride + p[None, :] * pixel_stride)


@triton.jit
def row_of(rows, stride, sample, c, wanted):
    """rows[sample, c] as float32; a stride of 0 is one row for all samples."""
    return tl.load(rows + sample * stride + c, mask=wanted, other=0.0).to(tl.float32)


@triton.jit
def factor_of(weight, scale, sample, scale_stride, c, wanted):
    """weight * (1 + scale) of the channels c of one sample."""
    factor = tl.where(wanted, 1.0, 0.0)
    if weight is not None:
        factor = factor * tl.load(weight + c, mask=wanted, other=0.0).to(tl.float32)
    if scale is not None:
        factor = factor * (1.0 + row_of(scale, scale_stride, sample, c, wanted))
    return factor


@triton.jit
def offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted):
    """bias * (1 + scale) + shift of the channels c of one sample."""
    offset = tl.where(wanted, 0.0, 0.0)
    if bias is not None:
        offset += tl.load(bias + c, mask=wanted, other=0.0).to(tl.float32)
        if scale is not None:
            offset = offset * (1.0 + row_of(scale, scale_stride, sample, c, wanted))
    if shift is not None:
        offset += row_of(shift, shift_stride, sample, c, wanted)
    return offset


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


@triton.jit
def members(c, wanted, per_group, first_group, SLOTS: tl.constexpr):
    """(channels, SLOTS): whether a channel belongs to group first_group + slot."""
    slot = c // per_group - first_group
    return (slot[:, None] == tl.arange(0, SLOTS)[None, :]) & wanted[:, None]


@triton.jit
def of_group(values, member):
    """Sums over the channels of each slot; what is not a number stays in its group."""
    return tl.sum(tl.where(member, values[:, None], 0.0), 0)


@triton.jit
def of_channel(values, member):
    """The value of each channel's slot."""
    return tl.sum(tl.where(member, values[None, :], 0.0), 1)
