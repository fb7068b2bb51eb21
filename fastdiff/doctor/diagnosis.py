"""All findings on one machine: examined, judged, turned into winners, and reported."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdiff.doctor.examine import FAILURES, Finding
from fastdiff.doctor.examples import examples_of
from fastdiff.doctor.loop import LOOP, WAYS
from fastdiff.doctor.loop import PATIENCE_S as LOOP_PATIENCE_S
from fastdiff.doctor.supervisor import PATIENCE_S, Request, Supervisor, command
from fastdiff.ops import dispatch, winners

#: The whole examination ends by then; what is left is told as not examined.
BUDGET_S = 300.0
#: A backend later in the order has to be this much faster to win.
_MARGIN = 1.03
#: Inductor compiles for about so long; it is not begun with less left.
INDUCTOR_NEEDS_S = 90.0
Progress = Callable[[str, int, int], None]


@dataclass
class Diagnosis:
    """What the doctor found.

    Attributes:
        device: facts of the device.
        findings: all of them.
        unexamined: op (or op and example) -> why nothing is known.
        stored: where the winners were written, or why they were not.
        seconds: how long it took.
    """

    device: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unexamined: dict[str, str] = field(default_factory=dict)
    stored: str = "not stored, as asked"
    seconds: float = 0.0

    def failures(self) -> list[Finding]:
        """What must not be used on this machine."""
        return [found for found in self.findings if found.state in FAILURES]

    def winners(self) -> dict[str, dict[str, str]]:
        """op -> class of shapes -> the fastest backend that was right everywhere, on all examples of the class."""
        bad = {(found.op, found.backend) for found in self.failures()}
        timed: dict[tuple[str, str], dict[str, list[float]]] = {}
        for found in self.findings:
            if found.op != LOOP and found.ms is not None and (found.op, found.backend) not in bad:
                of_class = timed.setdefault((found.op, found.shape_class), {})
                of_class.setdefault(found.backend, []).append(found.ms)
        result: dict[str, dict[str, str]] = {}
        for (op, shapes), times in timed.items():
            most = max(map(len, times.values()))
            everywhere = {backend: ms for backend, ms in times.items() if len(ms) == most}
            result.setdefault(op, {})[shapes] = fastest(everywhere)
        return result

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "device": self.device,
            "versions": winners.stamp(),
            "findings": [found.told() for found in self.findings],
            "unexamined": self.unexamined,
            "winners": self.winners(),
            "stored": self.stored,
            "seconds": round(self.seconds, 1),
            "status": 1 if self.failures() else 0,
        }


def fastest(times: dict[str, list[float]]) -> str:
    """The first backend whose time (geometric mean over the examples of a class) is about the best."""
    means = {name: math.exp(sum(map(math.log, ms)) / len(ms)) for name, ms in times.items()}
    return next(name for name, mean in means.items() if mean <= _MARGIN * min(means.values()))


def requests(ops: Sequence[str] = ()) -> tuple[list[Request], dict[str, str]]:
    """What to examine, and which ops have no examples.

    Raises:
        ValueError: an unknown op.
    """
    dispatch.load()
    known = sorted(dispatch.registered())
    for op in ops:
        if op not in known:
            raise ValueError(f"doctor: op must be one of {', '.join(known)}, got {op!r}")
    wanted, without = [], {}
    for op in ops or known:
        examples = examples_of(op)
        wanted += [Request(op, number, example.name) for number, example in enumerate(examples)]
        if not examples:
            without[op] = f"it has no examples (fastdiff/doctor/examples/{op}.py)"
    return wanted, without


def loop_requests() -> list[Request]:
    """The loop in every way."""
    return [Request(LOOP, i, way, patience_s=LOOP_PATIENCE_S) for i, way in enumerate(WAYS)]


def diagnose(
    device: str = "auto",
    *,
    ops: Sequence[str] = (),
    loop: bool = True,
    store: bool = True,
    cache: Path | None = None,
    budget_s: float = BUDGET_S,
    patience_s: float = PATIENCE_S,
    progress: Progress | None = None,
    worker: Sequence[str] | None = None,
) -> Diagnosis:
    """Examine ops on a device.

    Args:
        device: "auto" (the GPU where there is one), "cpu", "cuda" or "cuda:N".
        ops: names of ops, all when empty. The winners are stored only when all were examined.
        loop: when all ops are examined, also sample with the model that comes along, first in the ways that compile
            little, and by inductor after the ops.
        store: write the winners to the cache.
        cache: the file instead of the usual one (`fastdiff.ops.winners.file`).
        budget_s: seconds after which no further example is begun.
        patience_s: seconds of silence after which a kernel counts as hanging.
        progress: called with (op, examples done, examples in all).
        worker: the command that starts the examining process, for tests.

    Raises:
        ValueError: an unknown device or op.
        WorkerLost: the examining process does not start.
    """
    began = time.monotonic()
    wanted, unexamined = requests(ops)
    if loop and not ops:
        *quick, slow = loop_requests()
        slow.needs_s = INDUCTOR_NEEDS_S
        wanted = [*quick, *wanted, slow]
    found = Diagnosis(unexamined=unexamined)
    supervisor = Supervisor(command(device) if worker is None else worker, patience_s)
    try:
        found.device = supervisor.start()
        for number, request in enumerate(wanted):
            left_s = began + budget_s - time.monotonic()
            if left_s < request.needs_s:
                found.unexamined |= _left(wanted[number:], f"the time limit of {budget_s:g} s was reached")
                break
            if progress is not None:
                progress(request.op, number, len(wanted))
            found.findings += supervisor.findings(request)
    finally:
        supervisor.close()
    if store:
        found.stored = _stored(found, cache) if not ops else "not stored: only some ops were examined"
    found.seconds = time.monotonic() - began
    return found


def _left(requests: Iterable[Request], why: str) -> dict[str, str]:
    return {f"{request.op} {request.example}": why for request in requests}


def _stored(found: Diagnosis, cache: Path | None) -> str:
    try:
        classed = {op for op, backends in dispatch.registered().items() if backends[0].shape_class}
        kept = {op: won for op, won in found.winners().items() if op in classed}
        return str(winners.store(str(found.device["name"]), kept, cache))
    except OSError as error:
        return f"not stored: {error.filename}: {error.strerror}"
