"""Examples of `attention`: fewer and more keys than queries, odd widths, heads as strides; layers of real models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from . import FLOATS, Arguments, Example, normals, short

#: batch, heads, queries, keys, width
_SMALL = [(2, 3, 33, 33, 8), (1, 2, 17, 77, 40), (2, 1, 130, 5, 59), (1, 4, 64, 68, 32), (0, 2, 9, 9, 16)]
_SMALL += [(1, 1, 40, 40, 256), (1, 1, 1, 1, 1)]
_REAL = [(4, 4, 1024, 1024, 64), (8, 8, 256, 256, 32), (4, 1, 256, 256, 256), (2, 8, 1024, 77, 40)]


def _heads(seed: int, batch: int, heads: int, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """(B, heads, rows, width) as a view of (B, rows, heads * width), as a projection leaves it."""
    return normals(seed, batch, rows, heads * width, dtype=dtype).unflatten(2, (heads, width)).transpose(1, 2)


def attention_arguments(size: tuple[int, int, int, int, int], dtype: torch.dtype, loud: float) -> Arguments:
    """q, k, v and the usual scale; `loud` is a factor of q, and so of the scores."""
    batch, heads, queries, keys, width = size
    q = _heads(0, batch, heads, queries, width, dtype) * loud
    k, v = (_heads(seed, batch, heads, keys, width, dtype) for seed in (1, 2))
    return {"q": q, "k": k, "v": v, "scale": width**-0.5}


def examples() -> Iterator[Example]:
    """Small odd ones, some with scores far apart, and layers of real models."""
    gradients = ("q", "k", "v")
    for size in _SMALL:
        for dtype in FLOATS:
            name = f"{'x'.join(map(str, size))} {short(dtype)}"
            yield Example(name, partial(attention_arguments, size, dtype, 1.0), gradients=gradients)
            yield Example(f"{name}, scores far apart", partial(attention_arguments, size, dtype, 20.0))
    for size in _REAL:
        for dtype in FLOATS:
            name = f"{'x'.join(map(str, size))} {short(dtype)}"
            yield Example(name, partial(attention_arguments, size, dtype, 1.0), timed=True)
