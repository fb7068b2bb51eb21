"""Examples of `rms_norm_silu`: both memory formats, with and without scale and shift."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import Arguments, Example, normals, product
from .norm_sums import with_sums

_SMALL = [(2, 12, 5, 7), (3, 40, 33), (2, 8), (0, 8, 4, 4)]
_REAL = [(4, 64, 64, 64), (64, 48, 16, 16)]


def _arguments(shape: tuple[int, ...], dtype: torch.dtype, last: bool, mean: float = 0.0) -> Arguments:
    x = (normals(0, *shape) + mean).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    scale, shift = normals(2, shape[0], 2 * shape[1]).chunk(2, dim=1)
    return {"x": x, "weight": normals(1, shape[1]), "scale": scale, "shift": shift}


def examples() -> Iterator[Example]:
    """Small odd ones, with sums around the norm too, and maps of real models."""
    for shape, dtype, name in product(_SMALL):
        for last in (False, True) if len(shape) == 4 else (False,):
            order = "NHWC" if last else "NCHW"
            gradients = ("x", "weight", "scale", "shift")
            yield Example(
                f"{name} {order}", partial(_arguments, shape, dtype, last, 0.0), gradients=gradients
            )
            yield Example(f"{name} {order}, mean 100", partial(_arguments, shape, dtype, last, 100.0))
    yield from with_sums(_arguments, _SMALL[0])
    for shape, dtype, name in product(_REAL):
        for last in (False, True):
            order = "NHWC" if last else "NCHW"
            yield Example(f"{name} {order}", partial(_arguments, shape, dtype, last, 0.0), timed=True)
