"""Where the C++ attention is taken: only between shapes at which it was measured to beat torch's own.

`attention_table` holds, for each (heads, D, N, M) of a grid, time of torch / time of ours. A shape is taken when every
corner of the cell of the grid it lies in is a win of at least `MARGIN`; beyond the grid nothing was measured and
nothing is taken.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from . import attention_table, extension

#: Smallest measured ratio that counts as a win.
MARGIN = 1.05
#: Heads of all samples together, width D, queries N and keys M of the grid.
AXES = (attention_table.HEADS, attention_table.WIDTHS, attention_table.QUERIES, attention_table.KEYS)
_HERE = "" if extension.MISSING else extension.instruction_set()


def _around(axis: tuple[int, ...], value: int) -> tuple[int, ...]:
    """The neighbours of a value on an axis: itself, the two around it, or none beyond the ends."""
    if value in axis:
        return (value,)
    below = [point for point in axis if point < value]
    above = [point for point in axis if point > value]
    return (below[-1], above[0]) if below and above else ()


def wins(heads: int, width: int, queries: int, keys: int) -> bool:
    """Whether the C++ kernel was measured to be faster around this shape; more heads than measured count as most."""
    shape = (min(heads, attention_table.HEADS[-1]), width, queries, keys)
    corners = list(
        itertools.product(*(_around(axis, value) for axis, value in zip(AXES, shape, strict=True)))
    )
    return bool(corners) and all(attention_table.RATIOS.get(corner, 0.0) >= MARGIN for corner in corners)


def reasons(q: Tensor, k: Tensor, v: Tensor, gradient: bool) -> list[str]:
    """Why the C++ kernel is not taken for these inputs although it could run them."""
    if gradient:
        return ["a gradient is wanted, where torch's own attention is faster"]
    if q.dtype != torch.float32 or v.shape[-1] != q.shape[-1]:
        return ["it was measured with float32 inputs of one width"]
    if attention_table.INSTRUCTION_SET != _HERE:
        return [f"it was measured on {attention_table.INSTRUCTION_SET}, this is {_HERE}"]
    queries, width = q.shape[-2:]
    heads, keys = q.numel() // max(1, queries * width), k.shape[-2]
    if not wins(heads, width, queries, keys):
        return ["torch's own attention is as fast at this shape, or nobody has measured it"]
    return []
