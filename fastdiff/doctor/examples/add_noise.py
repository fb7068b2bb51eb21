"""Examples of `add_noise`: made and given noise, offset noise, a row per sample, odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import Arguments, Example, normals, product

_SMALL = [(5, 3, 7, 9), (3, 130), (0, 3, 4, 4)]
_REAL = [(64, 3, 32, 32), (16, 4, 64, 64)]


def _arguments(shape: tuple[int, ...], dtype: torch.dtype, given: bool, offset: float) -> Arguments:
    x0 = normals(0, *shape, dtype=dtype)
    if len(shape) == 4:
        x0 = x0.contiguous(memory_format=torch.channels_last)
    sample, level = torch.arange(shape[0]), torch.linspace(0.1, 0.9, shape[0])
    return {
        **{"x0": x0, "alpha": level, "sigma": 1 - level, "seeds": sample * 7919 - 3, "row": sample * 5},
        **{"noise": normals(1, *shape) if given else None, "offset": offset, "return_noise": True},
    }


def examples() -> Iterator[Example]:
    """Small odd ones in every form, and states of real models."""
    for shape, dtype, name in product(_SMALL):
        yield Example(f"{name}, made noise", partial(_arguments, shape, dtype, False, 0.0))
        yield Example(f"{name}, given noise", partial(_arguments, shape, dtype, True, 0.0))
        yield Example(f"{name}, offset noise", partial(_arguments, shape, dtype, False, 0.1))
    for shape, dtype, name in product(_REAL):
        yield Example(name, partial(_arguments, shape, dtype, False, 0.0), timed=True)
