"""Whole networks: the engine against eager torch, torch.compile, OpenVINO, ONNX Runtime, ncnn and MNN.

One process per rival (benchmarks/rivals.py); this one tells them in turn to run. All are made ready first, so that no
compilation runs beside a timing. What is counted: the time of a call, that of making ready (cold start), and memory.

A rival's time is taken from results/network.json where case, machine and the rival's version are those of that run and
eager torch, which always runs again, takes the time that it took then. FASTDIFF_BENCH_FRESH=1 measures all, and so does
a trial or a run that is kept elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.measure import Comparison, Spread, kept, machine, save
from benchmarks.networks import NETWORKS
from benchmarks.rivals import NEEDS, RIVALS

RESULTS = Path(__file__).parent / "results" / "network.json"
CASES = [(name, batch) for name, (_, _, batches) in NETWORKS.items() for batch in batches]
ROUNDS = 15
BARS = {("ddpm-cifar10 35.7 M", 1): 1.7, ("ddpm-cifar10 35.7 M", 4): 2.0, ("ddpm-cifar10 35.7 M", 16): 2.0}
#: Always measured: ours, and the two whose times say whether the machine is as fast as it was.
ANCHORS = ("eager", "eager channels_last")
DRIFT = 0.07
#: A rival that errs more than this, beside the largest value, computes something else and is not timed.
WRONG = 1e-2


class Rival:
    """A process that runs the network one way."""

    def __init__(self, network: str, batch: int, name: str, folder: Path) -> None:
        self.output = folder / f"{len(list(folder.iterdir()))}.npy"
        self.output.touch()
        command = [sys.executable, "-m", "benchmarks.rivals", network, str(batch), name, str(self.output)]
        pipe = subprocess.PIPE
        with (folder / "errors").open("w") as errors:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        try:
            self.cold_s = float(self._answer("ready")[0])
        except RuntimeError:
            last = (folder / "errors").read_text().strip().splitlines()[-1:] or [""]
            status = self.process.wait()
            reason = f"killed by signal {-status}" if status < 0 else last[0][:160]
            raise RuntimeError(f"it ended before its first result: {reason}") from None

    def _answer(self, start: str) -> list[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # beside what the rival's library prints
            if line.startswith(start):
                return line.split()[1:]
        raise RuntimeError("no answer")

    def _asked(self, line: str) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return [float(number) for number in self._answer("answer")]

    def milliseconds(self, calls: int) -> float:
        """The time of one call, mean of `calls`."""
        return self._asked(str(calls))[0]

    def memory(self) -> list[float]:
        """See `benchmarks.rivals.memory`."""
        return self._asked("memory")


@contextmanager
def ready(network: str, batch: int, names: list[str]) -> Iterator[tuple[dict[str, Rival], dict[str, str]]]:
    """Processes of all rivals that can be made ready, one after the other; and why the others cannot."""
    rivals: dict[str, Rival] = {}
    cannot = {name: "not installed" for name in RIVALS if name not in available()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in names:
                try:
                    rivals[name] = Rival(network, batch, name, Path(folder))
                except RuntimeError as error:
                    cannot[name] = str(error)
            yield rivals, cannot
        finally:
            for rival in rivals.values():
                rival.process.kill()
                rival.process.wait()


def errors(rivals: dict[str, Rival]) -> dict[str, float]:
    """Largest error over largest value, against eager torch."""
    exact = np.load(rivals["eager"].output)
    found = {}
    for name, rival in rivals.items():
        result = np.load(rival.output)
        far = np.abs(result - exact).max() if result.shape == exact.shape else np.inf
        found[name] = float(far / np.abs(exact).max())
    return found


def times_of(rivals: dict[str, Rival], rounds: int) -> np.ndarray:
    """Milliseconds of a call (round, rival), in turns."""
    order = list(rivals.values())
    calls = [max(1, round(100 / rival.milliseconds(1))) for rival in order]
    times = np.empty((rounds, len(order)))
    for k in range(rounds):
        for j in np.roll(np.arange(len(order)), k):
            order[j].milliseconds(1)  # not counted: a waiting process may have lost its memory
            times[k, j] = order[j].milliseconds(calls[j])
    return times


def timed(
    network: str, batch: int, rivals: dict[str, Rival], cannot: dict[str, str], rounds: int = ROUNDS
) -> Comparison:
    """The comparison of processes that are ready."""
    error = errors(rivals)
    assert error["fastdiff"] <= 1e-4, error
    for name in [name for name in rivals if error[name] > WRONG]:
        cannot[name] = f"its result is wrong: error {error.pop(name):.1e} of the largest value"
        rivals.pop(name).process.kill()
    order, times = list(rivals), times_of(rivals, rounds)
    memory = {name: rival.memory() for name, rival in rivals.items()}
    bar = BARS.get((network, batch), 1.5)
    return Comparison(
        name=f"{network}, batch {batch}",
        ours="fastdiff",
        time_ms={name: Spread.of(times[:, j]) for j, name in enumerate(order)},
        speedup={n: Spread.of(times[:, j] / times[:, 0]) for j, n in enumerate(order) if j > 0},
        rounds=len(times),
        dropped=0,
        quiet=True,
        facts={
            "machine": machine(),
            "versions": {name: version(name) for name in order},
            "bar": {name: bar for name in order if not name.startswith("fastdiff")},
            "cold_start_s": {name: rival.cold_s for name, rival in rivals.items()},
            "error": error,
            "resident_mib": {name: m[0] for name, m in memory.items()},
            "peak_mib": {name: m[1] for name, m in memory.items()},
            "packed_mib": {name: m[2] for name, m in memory.items() if name.startswith("fastdiff")},
            "weights_mib": memory["fastdiff"][3],
            "cannot": cannot,
            "reused": [],
        },
    )


def race(network: str, batch: int, names: list[str], rounds: int = ROUNDS) -> Comparison:
    """Make all rivals ready and time them in turns."""
    with ready(network, batch, names) as (rivals, cannot):
        return timed(network, batch, rivals, cannot, rounds)


def version(name: str) -> str:
    """The versions that a rival's time depends on."""
    return ", ".join([f"torch {torch.__version__}", *(f"{n} {metadata.version(n)}" for n in needs(name))])


def needs(name: str) -> list[str]:
    """Distributions that a rival needs beside torch."""
    return list(NEEDS.get(name, {}).values())


def available() -> list[str]:
    """Rivals whose packages are installed."""
    return [n for n in RIVALS if all(importlib.util.find_spec(module) for module in NEEDS.get(n, ()))]


def reusable(earlier: dict[str, Any] | None, names: list[str]) -> list[str]:
    """Rivals whose row of an earlier run of this case may stand, if eager torch takes the same time again."""
    if earlier is None or os.environ.get("FASTDIFF_BENCH_FRESH") == "1":
        return []
    facts = earlier["facts"]
    if facts.get("machine") != machine() or any(a not in earlier["time_ms"] for a in ANCHORS):
        return []
    known = facts.get("versions", {})
    return [
        name
        for name in names
        if name in earlier["time_ms"]
        and name not in ANCHORS
        and not name.startswith("fastdiff")
        and known.get(name) == version(name)
    ]


def same_speed(now: Comparison, earlier: dict[str, Any] | None) -> bool:
    """Whether eager torch takes the time that it took in the earlier run."""
    if earlier is None:
        return False
    ratios = [now.time_ms[name].median / earlier["time_ms"][name]["median"] for name in ANCHORS]
    return all(abs(ratio - 1.0) <= DRIFT for ratio in ratios)


def with_reused(now: Comparison, earlier: dict[str, Any], names: list[str]) -> Comparison:
    """The comparison with rows of an earlier run: ratios of that run's times and our median of this one."""
    ours = now.time_ms[now.ours].median
    for name in names:
        took = Spread(**earlier["time_ms"][name])
        now.time_ms[name] = took
        now.speedup[name] = Spread(took.median / ours, took.p10 / ours, took.p90 / ours)
        for fact in ("versions", "bar", "cold_start_s", "error", "resident_mib", "peak_mib"):
            now.facts[fact][name] = earlier["facts"][fact][name]
    now.facts["reused"] = names
    return now


@pytest.mark.parametrize(("network", "batch"), CASES)
def bench_network(
    benchmark: Any, results: Path, rounds: Callable[[int], int], network: str, batch: int
) -> None:
    earlier = kept(RESULTS).get(f"{network}, batch {batch}")
    names = available()
    old = reusable(earlier, names) if results == RESULTS.parent else []
    try:
        if old and not same_speed(race(network, batch, ["fastdiff", *ANCHORS], 5), earlier):
            old = []  # seen before all the others are made ready
        result = race(network, batch, [name for name in names if name not in old], rounds(ROUNDS))
        if earlier is not None and old:
            result = (
                with_reused(result, earlier, old)
                if same_speed(result, earlier)
                else race(network, batch, names, rounds(ROUNDS))
            )
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    print("\n" + "\n".join(result.lines()))
    for name, cold in result.facts["cold_start_s"].items():
        print(f"    cold start {cold:6.1f} s, error {result.facts['error'][name]:.1e}  {name}")
    save([result], results / RESULTS.name, keep=True)
    benchmark.extra_info.update({rival: spread.median for rival, spread in result.speedup.items()})
    benchmark.pedantic(lambda: None, rounds=1)
