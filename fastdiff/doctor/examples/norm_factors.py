"""Examples of `norm_factors`: statistics of one map and of two, groups that reach across both, every factor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from fastdiff.doctor.judge import Verdict
from fastdiff.doctor.judge import compare as usual

from . import Arguments, Example, normals

#: batch, stretches, channels of the first and second map, groups
_SMALL = [(2, 3, 12, 0, 4), (3, 1, 8, 4, 3), (1, 5, 40, 24, 32), (0, 2, 8, 0, 2)]
_REAL = [(4, 8, 128, 0, 32), (4, 16, 128, 256, 32)]


def _statistics(seed: int, batch: int, stretches: int, channels: int, mean: float) -> torch.Tensor:
    counts = torch.full((batch, stretches, channels), 37.0)
    means = normals(seed, batch, stretches, channels) + mean
    squares = 37 * (1 + normals(seed + 1, batch, stretches, channels).abs())
    return torch.stack([counts, means, squares], dim=2)


def _arguments(batch: int, stretches: int, first: int, second: int, groups: int, mean: float) -> Arguments:
    one = _statistics(0, batch, stretches, first, mean)
    both = (one, _statistics(2, batch, stretches + 1, second, mean)) if second else one
    channels = first + second
    scale, shift = normals(4, batch, 2 * channels).chunk(2, dim=1)
    return {
        **{
            "statistics": both,
            "groups": groups,
            "weight": normals(5, channels),
            "bias": normals(6, channels),
        },
        **{"scale": scale, "shift": shift},
    }


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """Three times torch's error: plain torch computes in float64 here and rounds once, which no float32 pass can."""
    return usual(ours, plain, exact, 3.0)


def examples() -> Iterator[Example]:
    """Small ones near zero and far from it, and those of real models."""
    for timed, cases in ((False, _SMALL), (True, _REAL)):
        for case in cases:
            for mean in (0.0, 100.0):
                batch, stretches, first, second, groups = case
                name = f"{batch}x{stretches}, {first}+{second} channels, {groups} groups, mean {mean:g}"
                yield Example(name, partial(_arguments, *case, mean), timed=timed)
