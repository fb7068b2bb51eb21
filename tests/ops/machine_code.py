"""What the tests of the Triton kernels' machine code share: where they can run, every case on every architecture."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from benchmarks.gpu_static import machine
from fastdiff.ops import device

compiles = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("fastdiff.kernels") is None, reason="fastdiff.kernels is not installed"
    ),
    pytest.mark.skipif(device.INTERPRETED, reason="what is interpreted is not compiled"),
]


def pairs(cases: Sequence[Any], name: Callable[[Any], str], quick: Collection[tuple[int, int]]) -> list[Any]:
    """Every (case, architecture); those that are not `quick`, pairs of an index and an architecture, are slow."""
    return [
        pytest.param(
            case, arch, marks=[] if (i, arch) in quick else pytest.mark.slow, id=f"{name(case)}-{i}-sm_{arch}"
        )
        for i, case in enumerate(cases)
        for arch in machine.ARCHITECTURES
    ]
