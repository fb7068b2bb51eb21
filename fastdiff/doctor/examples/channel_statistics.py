"""Examples of `channel_statistics`, and its own judgement: counts, means and squares each by their own largest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from fastdiff.doctor.judge import Verdict
from fastdiff.doctor.judge import compare as usual

from . import Arguments, Example, normals

_SMALL = [(2, 12, 5, 7), (3, 40, 33, 31), (1, 1, 1, 1), (0, 8, 4, 4)]
_REAL = [(4, 128, 32, 32), (4, 64, 64, 64)]
_NAMES = ("count", "mean", "squares")


def _arguments(shape: tuple[int, ...], mean: float) -> Arguments:
    return {"x": (normals(0, *shape) + mean).contiguous(memory_format=torch.channels_last)}


def examples() -> Iterator[Example]:
    """Small odd ones, also far from zero, and maps of real models."""
    for shape in _SMALL:
        name = "x".join(map(str, shape))
        yield Example(name, partial(_arguments, shape, 0.0))
        yield Example(f"{name}, mean 100", partial(_arguments, shape, 100.0))
    for shape in _REAL:
        yield Example("x".join(map(str, shape)), partial(_arguments, shape, 0.0), timed=True)


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """The usual rule for counts and squares; a mean is judged by the size of what it is the mean of."""
    if ours.dim() != 4 or ours.shape != plain.shape:
        return usual(ours, plain, exact)
    mine, torchs, true = (dict(zip(_NAMES, one.unbind(2), strict=True)) for one in (ours, plain, exact))
    size = (true["squares"] / true["count"]).sqrt() + true["mean"].abs()
    for part in (mine, torchs, true):
        part["mean"] = part["mean"] / size.to(part["mean"].dtype) + 1
    return usual(mine, torchs, true)
