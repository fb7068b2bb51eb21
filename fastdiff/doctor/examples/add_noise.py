"""Examples of `add_noise`: made and given noise, offset noise, a row per sample, odd sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastdiff.doctor.judge import FEW, Verdict, tensors
from fastdiff.doctor.judge import compare as usual

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


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """The usual rule; of few made numbers the unit is their deviation, not the largest of them.

    Made noise has one absolute error everywhere, and the only number may lie near zero. Offset noise is one number
    per sample and channel.
    """
    x0, sigma = arguments["x0"], arguments["sigma"]
    deviation = abs(float(arguments["offset"])) if x0.shape[:2].numel() < FEW else 0.0
    if arguments["noise"] is None and x0.numel() < FEW:
        deviation += 1.0
    blended = float(sigma.abs().max()) if sigma.numel() else 0.0
    floors = {
        name: _floor(values, deviation if place else blended * deviation)  # x_t, then the noise
        for place, (name, values) in enumerate(tensors(plain))
    }
    verdicts = usual(ours, plain, exact)
    return [replace(one, allowed=max(one.allowed, floors.get(one.what, 0.0))) for one in verdicts]


def _floor(values: Tensor, deviation: float) -> float:
    """16 ulp of a deviation in units of the largest value; 0 where that is 0 or infinite."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    return 16 * torch.finfo(values.dtype).eps * deviation / largest if 0.0 < largest < math.inf else 0.0


def examples() -> Iterator[Example]:
    """Small odd ones in every form, and states of real models."""
    for shape, dtype, name in product(_SMALL):
        yield Example(f"{name}, made noise", partial(_arguments, shape, dtype, False, 0.0))
        yield Example(f"{name}, given noise", partial(_arguments, shape, dtype, True, 0.0))
        yield Example(f"{name}, offset noise", partial(_arguments, shape, dtype, False, 0.1))
    for shape, dtype, name in product(_REAL):
        yield Example(name, partial(_arguments, shape, dtype, False, 0.0), timed=True)
