"""Whole networks: the engine against eager torch, torch.compile, OpenVINO and ONNX Runtime.

One process per rival (benchmarks/rivals.py); this one tells them in turn to run. All are made ready first, so that no
compilation runs beside a timing. What is counted: the time of a call, and that of making ready (cold start).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measure import Comparison, Spread, save
from benchmarks.networks import NETWORKS
from benchmarks.rivals import RIVALS

RESULTS = Path(__file__).parent / "results" / "network.json"
NEEDS = {"OpenVINO f32": "openvino", "ONNX Runtime": "onnxruntime"}
CASES = [(name, batch) for name, (_, _, batches) in NETWORKS.items() for batch in batches]
ROUNDS = 15
BARS = {("ddpm-cifar10 35.7 M", 1): 1.7, ("ddpm-cifar10 35.7 M", 4): 2.0, ("ddpm-cifar10 35.7 M", 16): 2.0}
_DONE: list[Comparison] = []


class Rival:
    """A process that runs the network one way."""

    def __init__(self, network: str, batch: int, name: str, folder: Path) -> None:
        self.output = folder / f"{len(list(folder.iterdir()))}.npy"
        self.output.touch()
        command = [sys.executable, "-m", "benchmarks.rivals", network, str(batch), name, str(self.output)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
        )
        self.cold_s = float(self._answer().split()[1])

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready") or line[0].isdigit():
                return line
        raise RuntimeError(f"a rival ended with status {self.process.wait()}")

    def milliseconds(self, calls: int) -> float:
        """The time of one call, mean of `calls`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return float(self._answer())


@contextmanager
def ready(network: str, batch: int, names: list[str]) -> Iterator[dict[str, Rival]]:
    """Processes of all rivals that can be made ready, one after the other."""
    rivals: dict[str, Rival] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in names:
                try:
                    rivals[name] = Rival(network, batch, name, Path(folder))
                except RuntimeError as error:
                    print(f"    {name} does not take this network: {error}")
            yield rivals
        finally:
            for rival in rivals.values():
                rival.process.kill()
                rival.process.wait()


def errors(rivals: dict[str, Rival]) -> dict[str, float]:
    """Largest error over largest value, against eager torch."""
    exact = np.load(rivals["eager"].output)
    return {
        name: float(np.abs(np.load(rival.output) - exact).max() / np.abs(exact).max())
        for name, rival in rivals.items()
    }


def race(network: str, batch: int, rounds: int, names: list[str]) -> Comparison:
    """Time all rivals in turns."""
    with ready(network, batch, names) as rivals:
        error, order = errors(rivals), list(rivals)
        assert error["fastdiff"] <= 1e-4, error
        calls = {name: max(1, round(100 / rival.milliseconds(1))) for name, rival in rivals.items()}
        times = np.empty((rounds, len(order)))
        for k in range(rounds):
            for j in np.roll(np.arange(len(order)), k):
                times[k, j] = rivals[order[j]].milliseconds(calls[order[j]])
        return Comparison(
            name=f"{network}, batch {batch}",
            ours="fastdiff",
            time_ms={name: Spread.of(times[:, j]) for j, name in enumerate(order)},
            speedup={n: Spread.of(times[:, j] / times[:, 0]) for j, n in enumerate(order) if j > 0},
            rounds=rounds,
            dropped=0,
            quiet=True,
            facts={
                "bar": dict.fromkeys(order[1:], BARS.get((network, batch), 1.5)),
                "cold_start_s": {name: r.cold_s for name, r in rivals.items()},
                "error": error,
            },
        )


def available() -> list[str]:
    """Rivals whose package is installed."""
    return [name for name in RIVALS if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


@pytest.mark.parametrize(("network", "batch"), CASES)
def bench_network(benchmark: Any, network: str, batch: int) -> None:
    try:
        result = race(network, batch, ROUNDS, available())
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    _DONE.append(result)
    print("\n" + "\n".join(result.lines()))
    for name, cold in result.facts["cold_start_s"].items():
        print(f"    cold start {cold:6.1f} s, error {result.facts['error'][name]:.1e}  {name}")
    save(_DONE, RESULTS)
    benchmark.extra_info.update({rival: spread.median for rival, spread in result.speedup.items()})
    benchmark.pedantic(lambda: None, rounds=1)
