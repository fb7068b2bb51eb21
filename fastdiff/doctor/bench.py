"""A short table for this machine: our ops against the fewest calls of plain torch, and the shipped model.

The suite behind published figures is in the folder benchmarks/ of the repository; this is what an installation can
measure by itself in about two minutes. A wrong result is not timed. Candidates take turns; the table shows the median
of the ratios per round, with their 10th and 90th percentiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fastdiff import ops
from fastdiff.doctor.devices import Device
from fastdiff.doctor.examine import Case
from fastdiff.doctor.examples import examples_of
from fastdiff.doctor.report import table
from fastdiff.doctor.rivals import call as rival_call
from fastdiff.ops import dispatch, use_backend

_ROUNDS = 30
_MOST_S = 2.0


@dataclass(frozen=True)
class Row:
    """One comparison: medians in milliseconds and the spread of rival / ours.

    Attributes:
        name: op and example, or what was sampled.
        ours_ms: median of our call.
        rival_ms: median of the rival's.
        ratio: median of rival / ours in a round.
        p10: its 10th percentile.
        p90: its 90th percentile.
        note: why there are no numbers.
    """

    name: str
    ours_ms: float = 0.0
    rival_ms: float = 0.0
    ratio: float = 0.0
    p10: float = 0.0
    p90: float = 0.0
    note: str = ""


def duel(
    name: str,
    ours: Callable[[], object],
    rival: Callable[[], object],
    time_ms: Callable[[Callable[[], object]], float],
    rounds: int = _ROUNDS,
) -> Row:
    """Time two calls in turns."""
    calls = (ours, rival)
    for one in calls:
        one()
    times, began = [], time.perf_counter()
    for turn in range(rounds):
        taken = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            taken[which] = time_ms(calls[which])
        times.append(taken)
        if turn >= 4 and time.perf_counter() - began > _MOST_S:
            break
    table_ms = np.array(times)
    p10, ratio, p90 = (float(v) for v in np.percentile(table_ms[:, 1] / table_ms[:, 0], (10, 50, 90)))
    ours_ms, rival_ms = (float(v) for v in np.median(table_ms, axis=0))
    return Row(name, ours_ms, rival_ms, ratio, p10, p90)


def wrong(case: Case) -> str:
    """What is wrong with what dispatch gives for an example; empty when nothing is."""
    case.prepare()
    arguments = case.arguments(put=case.device.put)
    verdicts = case.verdicts(case.called(arguments, "forward"), arguments, "forward")
    return "; ".join(v.what for v in verdicts if not v.right)


def op_rows(device: Device, wanted: Sequence[str]) -> Iterator[Row]:
    """A row for every example of these ops that is of a real size and in float32."""
    for op in wanted:
        for example in examples_of(op) if op in dispatch.registered() else ():
            if example.timed and "float16" not in example.name:
                yield _op_row(Case(op, example, device))


def _op_row(case: Case) -> Row:
    name = f"{case.op} {case.example.name}"
    faults = wrong(case)
    if faults:
        return Row(name, note=f"not timed, because it is wrong: {faults}")
    arguments, others = (case.arguments(put=case.device.put) for _ in range(2))
    function = getattr(ops, case.op)

    def ours() -> object:
        with torch.no_grad():
            return function(**arguments)

    return duel(name, ours, rival_call(case.op, others), case.device.time_ms)


def sampling_row(images: int = 16, steps: int = 10, device: str = "cpu") -> Row:
    """The shipped model: `fastdiff.sample` at its fastest, compiled, against the same loop on plain torch."""
    from fastdiff.model import load
    from fastdiff.sampling import sample

    model = load("fashion")
    model.net.to(device)

    labels = [k % 10 for k in range(images)]

    def draw(compile: bool | str = True if device == "cpu" else "auto") -> torch.Tensor:
        return sample(model, steps, num=images, labels=labels, device=device, compile=compile)

    def plain() -> torch.Tensor:
        with use_backend("torch"):
            return draw(compile=False)

    name = f"sample fashion, {images} images, {steps} DDIM steps (eager, all ops on plain torch)"
    far = float((draw() - plain()).abs().max())
    if far > 1e-3:
        return Row(name, note=f"not timed: images differ by {far:.2g}")
    return duel(name, draw, plain, _seconds_ms, rounds=5)


def _seconds_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def as_text(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table with the machine above it."""
    cells = [
        (r.name, f"{r.ours_ms:.3g}", f"{r.rival_ms:.3g}", f"{r.ratio:.2f} ({r.p10:.2f} to {r.p90:.2f})")
        if not r.note
        else (r.name, "", "", r.note)
        for r in rows
    ]
    head = ("case", "ours, ms", "plain torch, ms", "times faster (10th to 90th percentile)")
    machine = ", ".join(f"{name} {value}" for name, value in facts.items())
    return "\n".join([f"{machine}, torch {torch.__version__}", "", *table(head, cells)])


def to_dict(rows: list[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """As JSON."""
    return {"device": facts, "torch": str(torch.__version__), "rows": [asdict(row) for row in rows]}
