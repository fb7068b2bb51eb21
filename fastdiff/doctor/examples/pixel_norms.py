"""Examples of `pixel_norms`: one map and two, pixels that are all zero."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import Arguments, Example, normals

_SMALL = [(2, 12, 5, 7), (3, 40, 33, 31), (1, 1, 1, 1), (0, 8, 4, 4)]
_REAL = [(4, 64, 64, 64), (64, 48, 16, 16)]


def _arguments(shape: tuple[int, ...], second: int, zeros: bool) -> Arguments:
    last = {"memory_format": torch.channels_last}
    x = normals(0, *shape) * (normals(1, shape[0], 1, *shape[2:]) > 0 if zeros else 1)
    batch, _, height, width = shape
    x2 = normals(2, batch, second, height, width).contiguous(**last) if second else None
    return {"x": x.contiguous(**last), "x2": x2, "eps": 1e-3 if zeros else 1e-12}


def examples() -> Iterator[Example]:
    """Small odd ones, and maps of real models."""
    for shape in _SMALL:
        name = "x".join(map(str, shape))
        yield Example(name, partial(_arguments, shape, 0, False))
        yield Example(f"{name} and 5 channels more", partial(_arguments, shape, 5, False))
        yield Example(f"{name}, some pixels zero", partial(_arguments, shape, 0, True))
    for shape in _REAL:
        yield Example("x".join(map(str, shape)), partial(_arguments, shape, 0, False), timed=True)
