"""Examples of `conv1x1`: rows and maps, alone and with everything around the product."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from fastdiff.doctor.judge import Verdict
from fastdiff.ops.conv1x1 import last, pack
from fastdiff.ops.conv3x3 import NormFactors

from . import Arguments, Example, normals
from .conv3x3 import compare as of_sums

#: batch, input channels, output channels, size
_SMALL: list[tuple[int, int, int, tuple[int, ...]]] = [
    *[(2, 16, 16, (7, 9)), (3, 20, 33, ()), (3, 64, 48, (16, 16)), (1, 1, 1, (1,)), (0, 16, 16, (4, 4))],
]
_REAL: list[tuple[int, int, int, tuple[int, ...]]] = [
    *[(4, 256, 768, (16, 16)), (4, 256, 128, (32, 32)), (4, 512, 4992, ())],
]


def _plain(batch: int, channels: int, outs: int, size: tuple[int, ...]) -> Arguments:
    weight = normals(1, outs, channels) / channels**0.5
    return {"x": last(normals(0, batch, channels, *size)), "weight": pack(weight), "bias": normals(2, outs)}


def _full(batch: int, channels: int, outs: int, size: tuple[int, ...]) -> Arguments:
    weight = normals(1, outs, channels + 5) / channels**0.5
    norm = NormFactors(normals(3, batch, 2, channels + 5), normals(4, batch, *size).abs())
    return _plain(batch, channels, outs, size) | {
        **{"weight": pack(weight), "x2": last(normals(5, batch, 5, *size)), "norm": norm, "activate": True},
        **{"add": normals(6, batch, outs), "residual": last(normals(7, batch, outs, *size)), "gain": 0.7},
        "statistics": True,
    }


def examples() -> Iterator[Example]:
    """Odd small products, alone and with everything; those of real models."""
    for case in _SMALL:
        name = "x".join(map(str, (*case[:3], *case[3])))
        yield Example(name, partial(_plain, *case))
        yield Example(f"{name}, everything", partial(_full, *case))
    for case in _REAL:
        yield Example("x".join(map(str, (*case[:3], *case[3]))), partial(_plain, *case), timed=True)


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """Judged as `conv3x3` is."""
    return of_sums(arguments, ours, plain, exact)
