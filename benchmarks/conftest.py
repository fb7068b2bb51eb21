"""Benchmarks run under pytest: `make bench`. Each prints its rows; those of bench_X.py are kept in results/X.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import measure

RESULTS = Path(__file__).parent / "results"
_DONE: dict[Path, list[measure.Comparison]] = {}


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    """All rows are taken on two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def duel(benchmark: Any, request: Any) -> Callable[..., measure.Comparison]:
    """`measure.compare`, with the row printed and kept; our own times also go to pytest-benchmark's table."""
    path = RESULTS / f"{request.path.stem.removeprefix('bench_')}.json"

    def run(name: str, candidates: dict[str, measure.Candidate], **arguments: Any) -> measure.Comparison:
        result = measure.compare(name, candidates, **arguments)
        _DONE.setdefault(path, []).append(result)
        measure.save(_DONE[path], path)
        print("\n" + "\n".join(result.lines()))
        benchmark.extra_info.update({rival: spread.median for rival, spread in result.speedup.items()})
        benchmark.pedantic(candidates[result.ours], rounds=5, warmup_rounds=1)
        return result

    return run
