"""Whole networks: the engine against eager torch, torch.compile, OpenVINO, ONNX Runtime, ncnn and MNN.

One process per rival (benchmarks/rivals.py); this one tells them in turn to run. All are made ready first, so that no
compilation runs beside a timing. What is counted: the time of a call, that of making ready (cold start), and memory;
and between the rounds what the processor reads and multiplies, since small batches wait for their weights.

Measured in every run: ours, eager torch, and the rivals that were quickest in results/network.json. The row of another
stands from that run where its case, machine and version are unchanged; its times are then scaled by what eager torch
takes now and took then, and the page names it. FASTDIFF_BENCH_FRESH=1 measures all, and so does a trial or a run that
is kept elsewhere.
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
from benchmarks.rates import Rates
from benchmarks.rivals import NEEDS, RIVALS

RESULTS = Path(__file__).parent / "results" / "network.json"
CASES = [(name, batch) for name, (_, _, batches) in NETWORKS.items() for batch in batches]
ROUNDS = 15
BARS = {("ddpm-cifar10 35.7 M", 1): 1.7, ("ddpm-cifar10 35.7 M", 4): 2.0, ("ddpm-cifar10 35.7 M", 16): 2.0}
#: Fewer rounds of slow networks, but never fewer than these; seconds that the rounds of a case should take.
FEWEST, ROUNDS_S = 7, 75.0
#: Always measured beside ours: they say how fast the machine is beside an earlier run.
ANCHORS = ("eager", "eager channels_last")
#: So many of the quickest rivals of an earlier run are measured again: one of them is the one to beat.
AGAIN = 2
#: Ours in other modes run where docs/engine.md shows them.
MODES = [("ddpm-cifar10 35.7 M", 4)]
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
    installed = available(network, batch)
    cannot = {n: "not installed" for n in RIVALS if n not in installed and not n.startswith("fastdiff")}
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


def times_of(rivals: dict[str, Rival], rounds: int, rates: Rates) -> np.ndarray:
    """Milliseconds of a call (round, rival), in turns; the processor's own rates are taken before each round."""
    order = list(rivals.values())
    took = [rival.milliseconds(1) for rival in order]
    calls = [max(1, round(100 / one)) for one in took]
    round_s = 1e-3 * sum(one * (count + 1) for one, count in zip(took, calls, strict=True))
    rounds = min(rounds, max(FEWEST, round(ROUNDS_S / round_s)))
    times = np.empty((rounds, len(order)))
    for k in range(rounds):
        rates.take()
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
    rates = Rates()
    order, times = list(rivals), times_of(rivals, rounds, rates)
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
            "rates": rates.spreads(),
            "versions": {name: version(name) for name in order},
            "bar": {name: bar for name in order if not name.startswith("fastdiff")},
            "cold_start_s": {name: rival.cold_s for name, rival in rivals.items()},
            "error": error,
            "resident_mib": {name: m[0] for name, m in memory.items()},
            "peak_mib": {name: m[1] for name, m in memory.items()},
            "packed_mib": {name: m[2] for name, m in memory.items() if name.startswith("fastdiff")},
            "weights_mib": memory["fastdiff"][3],
            "cannot": cannot,
            "standing": {},
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


def available(network: str, batch: int) -> list[str]:
    """Ways to run a case whose packages are installed."""
    return [
        name
        for name in RIVALS
        if all(importlib.util.find_spec(module) for module in NEEDS.get(name, ()))
        and (not name.startswith("fastdiff,") or (network, batch) in MODES)
    ]


def standing(earlier: dict[str, Any] | None, names: list[str]) -> list[str]:
    """Rivals whose rows of an earlier run of this case stand."""
    if earlier is None or os.environ.get("FASTDIFF_BENCH_FRESH") == "1":
        return []
    facts, times = earlier["facts"], earlier["time_ms"]
    if facts.get("machine") != machine() or any(anchor not in times for anchor in ANCHORS):
        return []
    rivals = [name for name in names if name in times and not name.startswith("fastdiff")]
    quickest = sorted(rivals, key=lambda name: times[name]["median"])[:AGAIN]
    known = facts.get("versions", {})
    return [n for n in rivals if n not in (*ANCHORS, *quickest) and known.get(n) == version(n)]


def with_standing(now: Comparison, earlier: dict[str, Any], names: list[str]) -> Comparison:
    """The comparison with rows of an earlier run, scaled to the speed of the machine in this one."""
    then = earlier["time_ms"]
    drift = float(np.exp(np.mean([np.log(now.time_ms[a].median / then[a]["median"]) for a in ANCHORS])))
    ours = now.time_ms[now.ours].median
    for name in names:
        took = Spread(**{part: drift * value for part, value in then[name].items()})
        now.time_ms[name] = took
        now.speedup[name] = Spread(took.median / ours, took.p10 / ours, took.p90 / ours)
        now.facts["cold_start_s"][name] = drift * earlier["facts"]["cold_start_s"][name]
        for fact in ("versions", "bar", "error", "resident_mib", "peak_mib"):
            now.facts[fact][name] = earlier["facts"][fact][name]
    now.facts["standing"] = dict.fromkeys(names, drift)
    return now


@pytest.mark.parametrize(("network", "batch"), CASES)
def bench_network(
    benchmark: Any, results: Path, rounds: Callable[[int], int], network: str, batch: int
) -> None:
    earlier = kept(RESULTS).get(f"{network}, batch {batch}")
    names = available(network, batch)
    old = standing(earlier, names) if results == RESULTS.parent else []
    try:
        result = race(network, batch, [name for name in names if name not in old], rounds(ROUNDS))
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    if earlier is not None:
        result = with_standing(result, earlier, old)
    print("\n" + "\n".join(result.lines()))
    for name, cold in result.facts["cold_start_s"].items():
        print(f"    cold start {cold:6.1f} s, error {result.facts['error'][name]:.1e}  {name}")
    save([result], results / RESULTS.name, keep=True)
    benchmark.extra_info.update({rival: spread.median for rival, spread in result.speedup.items()})
    benchmark.pedantic(lambda: None, rounds=1)
