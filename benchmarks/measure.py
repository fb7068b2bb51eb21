"""Timing that can be trusted on a noisy machine: candidates take turns in one process, ratios are taken per round.

A comparison first runs its check and gives no number when that fails. Then, in every round, each candidate is timed
once, in an order that rotates; the ratio of a round compares times taken next to each other. Rounds in which the
system took a core away (involuntary context switches) are dropped while enough quiet ones remain. What is reported
is the median ratio with its 10th and 90th percentile, never the best of anything.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastdiff
from fastdiff.ops import extension

Candidate = Callable[[], object]
#: A sample shorter than this repeats its call, so that the clock and a single interrupt do not decide.
SHORTEST_SAMPLE_S = 1e-3
#: At least this part of the rounds must be free of involuntary switches, or all rounds count and the row says so.
QUIET_PART = 0.3


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """The spread of at least one value."""
        p10, median, p90 = (float(v) for v in np.percentile(values, (10, 50, 90)))
        return cls(median, p10, p90)


@dataclass(frozen=True)
class Comparison:
    """One case: our time, every rival's time and the ratio rival / ours per round.

    Attributes:
        name: What was measured.
        ours: Name of our candidate.
        time_ms: Spread of the time of a call, by candidate, milliseconds.
        speedup: Spread of rival / ours, by rival.
        rounds: Rounds that count.
        dropped: Rounds dropped for an involuntary context switch.
        quiet: False when too many rounds were disturbed and all of them count.
        facts: Shape, dtype and whatever else belongs to the case.
    """

    name: str
    ours: str
    time_ms: dict[str, Spread]
    speedup: dict[str, Spread]
    rounds: int
    dropped: int
    quiet: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The comparison as text, a line for us and one for each rival."""
        note = "" if self.quiet else "  (disturbed machine)"
        text = [f"{self.name}: {self.ours} {self.time_ms[self.ours].median:.4g} ms{note}"]
        for rival, s in self.speedup.items():
            took = self.time_ms[rival].median
            text.append(f"    {s.median:6.2f}x  [{s.p10:.2f}, {s.p90:.2f}]  over {rival} ({took:.4g} ms)")
        return text


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _repeats(candidate: Candidate) -> int:
    """Calls per sample: enough for the shortest one, after a warm-up; calls of a second are warm by their check."""
    for _ in range(4):
        start = time.perf_counter()
        candidate()
        took = time.perf_counter() - start
        if took > 1:
            break
    return max(1, round(SHORTEST_SAMPLE_S / max(took, 1e-7)))


def _sample(candidate: Candidate, repeats: int) -> tuple[float, bool]:
    """(seconds per call, whether no thread was interrupted)."""
    before, start = _switches(), time.perf_counter()
    for _ in range(repeats):
        candidate()
    return (time.perf_counter() - start) / repeats, _switches() == before


def compare(
    name: str,
    candidates: Mapping[str, Candidate],
    *,
    check: Callable[[], None],
    rounds: int = 100,
    **facts: Any,
) -> Comparison:
    """Time the first candidate (ours) against the others.

    Args:
        name: Name of the case.
        candidates: By name, ours first; each a call without arguments.
        check: Raises when our result is wrong; runs before anything is timed.
        rounds: How often each candidate is timed.
        facts: Kept with the result.
    """
    check()
    names = list(candidates)
    repeats = {key: _repeats(candidates[key]) for key in names}
    times, quiet = np.empty((rounds, len(names))), np.ones(rounds, dtype=bool)
    for k in range(rounds):
        for j in np.roll(np.arange(len(names)), k):
            times[k, j], undisturbed = _sample(candidates[names[j]], repeats[names[j]])
            quiet[k] &= undisturbed
    enough = bool(quiet.mean() >= QUIET_PART)
    counted = times[quiet] if enough else times
    return Comparison(
        name=name,
        ours=names[0],
        time_ms={key: Spread.of(1e3 * counted[:, j]) for j, key in enumerate(names)},
        speedup={key: Spread.of(counted[:, j] / counted[:, 0]) for j, key in enumerate(names) if j > 0},
        rounds=len(counted),
        dropped=rounds - len(counted),
        quiet=enough,
        facts=facts,
    )


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine() -> dict[str, Any]:
    """What a number depends on besides the code."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": "none" if extension.MISSING else extension.instruction_set(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "fastdiff": fastdiff.__version__,
    }


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """The comparisons of an earlier run by name; none where there is no file."""
    if not path.is_file():
        return {}
    return {c["name"]: c for c in json.loads(path.read_text(encoding="utf-8"))["comparisons"]}


def save(comparisons: list[Comparison], path: Path, keep: bool = False) -> None:
    """Write comparisons and the machine as JSON, complete or not at all.

    Args:
        comparisons: Of this run.
        path: The file.
        keep: Keep cases of an earlier run that this one has not measured; every case then names its machine.
    """
    rows = kept(path) if keep else {}
    rows |= {c.name: asdict(c) for c in comparisons}
    text = json.dumps({"machine": machine(), "comparisons": list(rows.values())}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
