"""Examples of `linear_attention`: fewer and more keys than queries, odd widths; layers of real models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from . import FLOATS, Example, short
from .attention import attention_arguments

#: batch, heads, queries, keys, width
_SMALL = [(2, 3, 33, 33, 8), (1, 2, 17, 77, 40), (2, 1, 130, 5, 59), (0, 2, 9, 9, 16), (1, 1, 1, 1, 1)]
_REAL = [(4, 4, 4096, 4096, 32), (4, 4, 1024, 1024, 32)]


def examples() -> Iterator[Example]:
    """Small odd ones, and layers of real models."""
    for timed, sizes in ((False, _SMALL), (True, _REAL)):
        for size in sizes:
            for dtype in FLOATS:
                name = f"{'x'.join(map(str, size))} {short(dtype)}"
                gradients = () if timed else ("q", "k", "v")
                make = partial(attention_arguments, size, dtype, 1.0)
                yield Example(name, make, timed=timed, gradients=gradients)
