"""Classes of calls that are about equally fast: a short text per call, under which `fastdiff doctor` keeps a winner.

A class tells the dtype, sizes rounded up to a power of four (so that a layer near one that was timed shares its
winner), the memory format and what else decides the speed. It never tells the size of the batch: which backend runs a
sample, and so its last digits, must not depend on the samples beside it. (Attention, whose heads of all samples are one
number, is the exception.) Sizes are compared, not computed with, so that torch.compile can trace a class with sizes
that it does not know.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def rounded(size: int) -> int:
    """The least power of four that is not smaller."""
    power = 1
    while power < size:
        power *= 4
    return power


def _size(x: Tensor, first: int) -> int:
    """Elements of the dimensions from `first` on."""
    size = 1
    for n in x.shape[first:]:
        size *= n
    return size


def of_maps(x: Tensor, **with_: Any) -> str:
    """The class of a call on x (B, C, ...): elements per sample and whatever of `with_` is given and not off."""
    layout = " channels last" if x.dim() > 2 and x.stride(1) == 1 and x.shape[1] > 1 else ""
    named = [name for name, value in with_.items() if value is not None and value is not False]
    told = f" with {', '.join(named)}" if named else ""
    return f"{x.dtype} {rounded(_size(x, 1))}{layout}{told}"


def of_rows(z: Tensor, codes: int) -> str:
    """The class of a call on rows z (..., D) and so many codes, however many rows there are."""
    return f"{z.dtype} {z.shape[-1]} wide, {rounded(codes)} codes"
