"""Examples of `group_norm_silu`: both memory formats, values that trip up a careless variance, every factor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import Arguments, Example, normals, product
from .norm_sums import with_sums

_SMALL = [(2, 12, 5, 7), (3, 40, 33), (2, 8), (0, 8, 4, 4)]
_REAL: dict[tuple[int, ...], int] = {(4, 128, 32, 32): 32, (4, 64, 64, 64): 8, (2, 320, 64, 64): 32}
_GRADIENTS = ("x", "weight", "bias", "scale", "shift")


def _arguments(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, last: bool, mean: float, plain: bool
) -> Arguments:
    x = normals(0, *shape) + mean
    x = x.to(dtype).contiguous(memory_format=torch.channels_last) if last else x.to(dtype)
    given = {"x": x, "groups": groups, "weight": normals(1, shape[1]), "bias": normals(2, shape[1])}
    if plain:
        return given
    scale, shift = normals(3, shape[0], 2 * shape[1]).chunk(2, dim=1)
    return given | {"scale": scale, "shift": shift}


def _with_all_factors(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Arguments:
    return _arguments(shape, 4, dtype, last, 0.0, False)


def examples() -> Iterator[Example]:
    """Small odd ones with every factor and with sums around the norm, and maps of real models."""
    for shape, dtype, name in product(_SMALL):
        for last in (False, True) if len(shape) == 4 else (False,):
            order = "NHWC" if last else "NCHW"
            make = partial(_arguments, shape, 4, dtype, last, 0.0, False)
            yield Example(f"{name} {order}, all factors", make, gradients=_GRADIENTS)
            far = partial(_arguments, shape, 4, dtype, last, 100.0, False)
            yield Example(f"{name} {order}, mean 100", far)
    yield from with_sums(_with_all_factors, _SMALL[0])
    for shape, dtype, name in product(list(_REAL)):
        for last in (False, True):
            make = partial(_arguments, shape, _REAL[shape], dtype, last, 0.0, True)
            yield Example(f"{name} {'NHWC' if last else 'NCHW'}", make, timed=True)
