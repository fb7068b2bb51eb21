"""What a normalisation adds up before it measures and after it has applied; see `fastdiff.ops.norm_sums`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

import triton
import triton.language as tl

from .maps import Layout, Map, Rows, layout_of, map_of, place, row_of, rows_of


class Terms(NamedTuple):
    """s = [x + add + residual + residual_add, x2], joined over channels, as kernels read it.

    Attributes:
        x: the map whose order s has.
        add: rows of x's channels.
        residual: added before the norm, or to the result where the kernel's AFTER is set; so is residual_add.
        residual_add: rows of x's channels.
        x2: the channels of s from `first` on.
        first: channels of x.
    """

    x: Map
    add: Rows
    residual: Map
    residual_add: Rows
    x2: Map
    first: int

    def several(self, after: bool) -> bool:
        """Whether s is the sum of several maps, so that a second launch reads it from memory rather than anew."""
        return self.x2.data is not None or (self.residual.data is not None and not after)

    def once_written(self, total: Tensor, after: bool) -> Terms:
        """Those of a second launch, which finds the sum in `total`."""
        residual, residual_add = (
            (self.residual, self.residual_add) if after else (map_of(None), rows_of(None))
        )
        return Terms(map_of(total), rows_of(None), residual, residual_add, map_of(None), total.shape[1])


def terms_of(
    x: Tensor, add: Tensor | None, residual: Tensor | None, residual_add: Tensor | None, x2: Tensor | None
) -> Terms:
    """The terms of an op; all maps are dense."""
    return Terms(map_of(x), rows_of(add), map_of(residual), rows_of(residual_add), map_of(x2), x.shape[1])


def sums_taken(x: Tensor, out: Tensor, terms: Terms) -> tuple[Layout, bool]:
    """The layout of s, in the order of x; whether anything is added or joined, or the result has another order."""
    layout = layout_of(x).of_channels(out.shape[1])
    given = (terms.add, terms.residual, terms.residual_add, terms.x2)
    return layout, any(t.data is not None for t in given) or layout_of(out) != layout


@triton.jit
def places(terms, sample, c, p):
    """Where channels c x pixels p of one sample lie in x, in the residual and in x2."""
    x2_at = place(terms.x2, sample, c - terms.first, p)
    return place(terms.x, sample, c, p), place(terms.residual, sample, c, p), x2_at


@triton.jit
def rows_added(values, rows, sample, c, wanted):
    """values (channels, pixels) + rows[sample, c], where there are rows."""
    if rows.data is not None:
        values += row_of(rows, sample, c, wanted)[:, None]
    return values


@triton.jit
def loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER: tl.constexpr):
    """s of the channels c at `places`; 0 outside."""
    own, mine = wanted, inside
    if terms.x2.data is not None:
        own = wanted & (c < terms.first)
        mine = inside & (c < terms.first)[:, None]
    values = tl.load(terms.x.data + x_at, mask=mine, other=0.0).to(tl.float32)
    values = rows_added(values, terms.add, sample, c, own)
    if not AFTER:
        if terms.residual.data is not None:
            values += tl.load(terms.residual.data + r_at, mask=mine, other=0.0).to(tl.float32)
        values = rows_added(values, terms.residual_add, sample, c, own)
    if terms.x2.data is not None:
        behind = inside & (c >= terms.first)[:, None]
        values += tl.load(terms.x2.data + x2_at, mask=behind, other=0.0).to(tl.float32)
    if terms.add.data is not None or terms.residual.data is not None or terms.residual_add.data is not None:
        values = tl.where(inside, values.to(terms.x.data.dtype.element_ty).to(tl.float32), 0.0)
    return values


@triton.jit
def finished(y, terms, r_at, sample, c, wanted, inside, AFTER: tl.constexpr):
    """The result with what is added after the norm."""
    if AFTER:
        if terms.residual.data is not None:
            y += tl.load(terms.residual.data + r_at, mask=inside, other=0.0).to(tl.float32)
        y = rows_added(y, terms.residual_add, sample, c, wanted)
    return y
