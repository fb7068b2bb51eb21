"""What a normalisation adds up before it measures and after it has applied; see `fastdiff.ops.norm_sums`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

import triton
import triton.language as tl

from .maps import Map, map_of, row_of, row_stride


@triton.jit
def rows_added(values, rows, stride, sample, c, wanted):
    """values (channels, pixels) + rows[sample, c], where there are rows."""
    if rows is not None:
        values += row_of(rows, stride, sample, c, wanted)[:, None]
    return values


@triton.jit
def loaded(
    x, add, residual, residual_add, x2, x_at, r_at, x2_at, first, sample, add_stride, residual_add_stride,
    c, wanted, inside, AFTER: tl.constexpr,
):  # fmt: skip
    """s of the channels c: x + add + residual + residual_add, and from channel `first` on x2; 0 outside."""
    own, mine = wanted, inside
    if x2 is not None:
        own = wanted & (c < first)
        mine = inside & (c < first)[:, None]
    values = tl.load(x + x_at, mask=mine, other=0.0).to(tl.float32)
    values = rows_added(values, add, add_stride, sample, c, own)
    if not AFTER:
        if residual is not None:
            values += tl.load(residual + r_at, mask=mine, other=0.0).to(tl.float32)
        values = rows_added(values, residual_add, residual_add_stride, sample, c, own)
    if x2 is not None:
        values += tl.load(x2 + x2_at, mask=inside & (c >= first)[:, None], other=0.0).to(tl.float32)
    if add is not None or residual is not None or residual_add is not None:
        values = tl.where(inside, values.to(x.dtype.element_ty).to(tl.float32), 0.0)
    return values


@triton.jit
def finished(
    y, residual, residual_add, r_at, sample, residual_add_stride, c, wanted, inside, AFTER: tl.constexpr
):
    """The result with what is added after the norm."""
    if AFTER:
        if residual is not None:
            y += tl.load(residual + r_at, mask=inside, other=0.0).to(tl.float32)
        y = rows_added(y, residual_add, residual_add_stride, sample, c, wanted)
    return y


class Summed(NamedTuple):
    """The terms of a sum, and the strides of its maps: (sample, channel, pixel), zeros where there is none.

    Attributes:
        layout: of s, the map that is normalised, in the order of x.
        tensors: add, residual, residual_add, x2.
        rows: strides of the rows of add and residual_add.
        x: strides.
        residual: strides.
        x2: strides.
        out: strides of the result.
        total: strides of where s is written.
        first: channels of x.
    """

    layout: Map
    tensors: tuple[Tensor | None, ...]
    rows: tuple[int, int]
    x: tuple[int, int, int]
    residual: tuple[int, int, int]
    x2: tuple[int, int, int]
    out: tuple[int, int, int]
    total: tuple[int, int, int]
    first: int

    @property
    def plain(self) -> bool:
        """Whether nothing is added or joined."""
        return all(t is None for t in self.tensors)

    def several(self, after: bool) -> bool:
        """Whether s is the sum of several maps, so that a second launch reads it from memory rather than anew."""
        _, residual, _, x2 = self.tensors
        return x2 is not None or (residual is not None and not after)

    def again(self, x: Tensor, total: Tensor | None, after: bool) -> tuple[Tensor | None, ...]:
        """(x, add, residual, residual_add) of a second launch, after s has been written into `total`, or has not."""
        add, residual, residual_add, _ = self.tensors
        if total is None:
            return x, add, residual, residual_add
        return (total, None, residual, residual_add) if after else (total, None, None, None)


def summed(
    out: Tensor,
    total: Tensor | None,
    x: Tensor,
    add: Tensor | None,
    residual: Tensor | None,
    residual_add: Tensor | None,
    x2: Tensor | None,
) -> Summed:
    """How the kernels read the terms of a sum; all maps are dense."""
    mine, rows = map_of(x), (_row_stride(add), _row_stride(residual_add))
    maps = [_strides(t) for t in (x, residual, x2, out, total)]
    return Summed(
        _of_channels(mine, out.shape[1]), (add, residual, residual_add, x2), rows, *maps, x.shape[1]
    )


def _of_channels(one: Map, channels: int) -> Map:
    """The map with another number of channels."""
    sample = channels * one.pixels
    if one.last:
        return Map(one.batch, channels, one.pixels, sample, 1, channels)
    return Map(one.batch, channels, one.pixels, sample, one.pixels, 1)


def _strides(t: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if t is None else map_of(t).strides


def _row_stride(rows: Tensor | None) -> int:
    return 0 if rows is None or rows.dim() == 1 else row_stride(rows)
