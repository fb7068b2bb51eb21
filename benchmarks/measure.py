"""Reliable timing on a noisy machine: candidates take turns in one process, and ratios are taken per round.

A comparison first runs its check and gives no number when that fails. Then, in every round, each candidate is timed
once, in an order that rotates; the ratio of a round compares times taken next to each other. Rounds in which the
system took a core away (involuntary context switches) are dropped while enough quiet ones remain. The report is the
median ratio with its 10th and 90th percentiles, never the best of anything. A rival whose call fails is left out, with
the reason.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastdiff
from benchmarks.clocks import Candidate, Clock, Wall, graphics
from fastdiff.ops import extension, winners

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
        text += [f"    {rival} is left out: {why}" for rival, why in self.facts.get("cannot", {}).items()]
        return text


def _able(candidates: Mapping[str, Candidate], clock: Clock) -> tuple[dict[str, int], dict[str, str]]:
    """Calls per sample of every candidate that runs, and why the others do not; ours has to."""
    repeats, cannot = {}, {}
    for name, candidate in candidates.items():
        try:
            repeats[name] = clock.repeats(candidate)
        except Exception as error:
            if not repeats:
                raise
            cannot[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
    return repeats, cannot


def compare(
    name: str,
    candidates: Mapping[str, Candidate],
    *,
    check: Callable[[], None],
    rounds: int = 100,
    clock: Clock | None = None,
    **facts: Any,
) -> Comparison:
    """Time the first candidate (ours) against the others.

    Args:
        name: Name of the case.
        candidates: By name, ours first; each a call without arguments.
        check: Raises when our result is wrong; runs before anything is timed.
        rounds: How often each candidate is timed.
        clock: That of the host, or of a GPU.
        facts: Kept with the result.
    """
    check()
    clock = clock or Wall()
    repeats, cannot = _able(candidates, clock)
    if cannot:
        facts["cannot"] = {**facts.get("cannot", {}), **cannot}
    names = list(repeats)
    times, quiet = np.empty((rounds, len(names))), np.ones(rounds, dtype=bool)
    for k in range(rounds):
        for j in np.roll(np.arange(len(names)), k):
            times[k, j], undisturbed = clock.sample(candidates[names[j]], repeats[names[j]])
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


def kind(dtype: torch.dtype) -> str:
    """What a case's name says of its dtype: nothing of float32."""
    return "" if dtype == torch.float32 else f", {str(dtype).removeprefix('torch.')}"


def machine(device: str = "cpu") -> dict[str, Any]:
    """What a number depends on besides the code."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "fastdiff": fastdiff.__version__,
    }
    if torch.device(device).type == "cuda":
        return graphics(device) | versions
    return {
        "processor": winners.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": "none" if extension.MISSING else extension.instruction_set(),
    } | versions


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """The comparisons of an earlier run by name; none where there is no file."""
    if not path.is_file():
        return {}
    return {c["name"]: c for c in json.loads(path.read_text(encoding="utf-8"))["comparisons"]}


def save(comparisons: list[Comparison], path: Path, keep: bool = False, device: str = "cpu") -> None:
    """Write comparisons and the machine as JSON, complete or not at all.

    Args:
        comparisons: Of this run.
        path: The file.
        keep: Keep cases of an earlier run that this one has not measured; every case then names its machine.
        device: Where they were measured.
    """
    rows = kept(path) if keep else {}
    rows |= {c.name: asdict(c) for c in comparisons}
    text = json.dumps({"machine": machine(device), "comparisons": list(rows.values())}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
