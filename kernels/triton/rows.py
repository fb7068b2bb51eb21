"""Tensors (..., D) as matrices."""

from __future__ import annotations

from torch import Tensor


def as_rows(t: Tensor, tile: int = 0) -> tuple[Tensor, int, int]:
    """(tensor, row stride, step) of a tensor (..., D) as a matrix.

    Copied where its rows have no one stride, or where `tile` rows reach further than 32 bits count.
    """
    width = t.shape[-1]
    row, step, reach = width, t.stride(-1) if width > 1 else 1, 0
    for size, stride in zip(reversed(t.shape[:-1]), reversed(t.stride()[:-1]), strict=True):
        if size == 1:
            continue
        if reach == 0:
            row, reach = stride, stride * size
        elif stride != reach:
            return as_rows(t.contiguous(), tile)
        else:
            reach *= size
    if tile * row + width * step >= 2**31 and not t.is_contiguous():
        return as_rows(t.contiguous(), tile)
    return t, row, step
