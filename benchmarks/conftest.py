"""Benchmarks run under pytest: `make bench`. Each prints its rows; those of bench_X.py are kept in results/X.json.

`--rounds 1` tries everything quickly and keeps its rows in out/bench; `--device cuda` measures ops on a GPU and keeps
them in results/gpu/DEVICE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import clocks, measure

RESULTS = Path(__file__).parent / "results"
#: Files whose cases know more devices than the CPU.
ON_GPU = {
    *("bench_attention.py", "bench_norms.py", "bench_sampling_gpu.py", "bench_solver_step.py", "bench_vq.py"),
}
#: pytest-benchmark's own table repeats calls that are shorter.
LONG_MS = 200.0
_DONE: dict[Path, list[measure.Comparison]] = {}


def pytest_addoption(parser: Any) -> None:
    group = parser.getgroup("fastdiff")
    group.addoption("--device", default="cpu", help="cpu, or cuda for ops")
    group.addoption("--dtype", default="float32", help="of norms and attention: float32, bfloat16 or float16")
    group.addoption("--rounds", type=int, help="at most so many rounds: a trial, kept apart")
    group.addoption("--results", type=Path, help="folder of the JSON files")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    if config.getoption("--device") == "cpu":
        return
    for item in items:
        if item.path.name not in ON_GPU:
            item.add_marker(pytest.mark.skip(reason="measured on CPUs only"))


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    """A whole CPU run drops rows of cases that no longer exist; a run that was cut off or narrowed keeps them."""
    config = session.config
    chosen = config.getoption("-k") or any("::" in argument for argument in config.args)
    if exitstatus == 0 and not chosen and config.getoption("--device") == "cpu":
        for path, done in _DONE.items():
            measure.save(done, path)


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> Iterator[None]:
    """All rows are taken on two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def place(request: Any) -> str:
    """The device."""
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: Any) -> torch.dtype:
    """Of what is measured, where the case has a choice."""
    return getattr(torch, request.config.getoption("--dtype"))  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def results(request: Any, place: str) -> Path:
    """Where rows are kept."""
    given = request.config.getoption("--results")
    if given is not None:
        return Path(given)
    if request.config.getoption("--rounds") is not None:
        return Path("out") / "bench"
    if place == "cpu":
        return RESULTS
    name = torch.cuda.get_device_properties(place).name
    return RESULTS / "gpu" / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@pytest.fixture(scope="session")
def rounds(request: Any) -> Callable[[int], int]:
    """As many rounds as asked for, unless this is a trial."""
    most = request.config.getoption("--rounds")
    return lambda wanted: wanted if most is None else min(wanted, most)


@pytest.fixture(scope="session")
def clock(place: str) -> clocks.Clock:
    """That of the device."""
    return clocks.Wall() if place == "cpu" else clocks.Events(place)


@pytest.fixture
def duel(
    benchmark: Any,
    request: Any,
    place: str,
    results: Path,
    rounds: Callable[[int], int],
    clock: clocks.Clock,
) -> Callable[..., measure.Comparison]:
    """`measure.compare`, with the row printed and kept; our own times also go to pytest-benchmark's table.

    Rows of earlier runs stay until this one has all cases, see `pytest_sessionfinish`.
    """
    path = results / f"{request.path.stem.removeprefix('bench_')}.json"

    def run(name: str, candidates: dict[str, measure.Candidate], **arguments: Any) -> measure.Comparison:
        arguments["rounds"] = rounds(arguments.get("rounds", 100))
        arguments["machine"] = measure.machine(place)
        result = measure.compare(name, candidates, clock=clock, **arguments)
        _DONE.setdefault(path, []).append(result)
        measure.save(_DONE[path], path, keep=True, device=place)
        print("\n" + "\n".join(result.lines()))
        benchmark.extra_info.update({rival: spread.median for rival, spread in result.speedup.items()})
        repeated = 5 if result.time_ms[result.ours].median < LONG_MS else 1
        benchmark.pedantic(candidates[result.ours], rounds=rounds(repeated), warmup_rounds=0)
        return result

    return run
