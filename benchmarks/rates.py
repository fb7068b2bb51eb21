"""What the processor itself gives during a race: bytes from memory and products of matrices per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.measure import Spread

#: More than the caches of a core hold, and about the weights of the largest network of a race, 160 MB.
FAR = 40_000_000
#: Rows and columns of the matrices: they stay in the caches.
WIDTH = 1024


class Rates:
    """Rates of all threads, taken between the rounds of a race while the rivals wait."""

    def __init__(self) -> None:
        self.far = torch.ones(FAR)
        self.a, self.b = torch.ones(WIDTH, WIDTH), torch.ones(WIDTH, WIDTH)
        self.taken: dict[str, list[float]] = {"read, GB/s": [], "sgemm, GFLOP/s": []}

    def take(self) -> None:
        """One sample of each rate, behind a warm-up: the threads have slept."""
        self.far[: FAR // 8].sum()
        self.taken["read, GB/s"].append(4 * FAR / seconds(self.far.sum) / 1e9)
        self.taken["sgemm, GFLOP/s"].append(2 * WIDTH**3 / seconds(lambda: torch.mm(self.a, self.b)) / 1e9)

    def spreads(self) -> dict[str, dict[str, float]]:
        """Median, 10th and 90th percentile of each rate."""
        return {name: asdict(Spread.of(np.array(values))) for name, values in self.taken.items()}


def seconds(call: Callable[[], object]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
