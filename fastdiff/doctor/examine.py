"""One op on one example: every backend against float64, then the time of those that are right."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastdiff import ops
from fastdiff.doctor import judge
from fastdiff.doctor.devices import Device, copied, exact_products
from fastdiff.doctor.examples import Arguments, Example, compare_of
from fastdiff.ops import dispatch, use_backend

PHASES = ("forward", "gradient")
#: What ends with status 1: the kernel is not to be used on this machine.
FAILURES = ("wrong", "error", "crashed", "timeout")
_GRADIENT_FACTOR = 3.0
_ROUNDS, _FEWEST_ROUNDS = 21, 3
_MOST_S = 0.1
#: Torch's own sums in another order on a GPU; the measure is torch's error on the CPU.
_OTHER_TORCH = 4.0
_TRACE = 4000


@dataclass
class Finding:
    """What one backend did on one example.

    Attributes:
        op: name of the op.
        backend: name of the backend.
        example: name of the example.
        phase: "forward" or "gradient".
        state: right, wrong, error (an exception), crashed, timeout, refused (it says why) or absent (not here).
        note: what was wrong, or the reason.
        error: worst error as a part of the allowed one.
        ms: median time of a call in milliseconds, where it was timed.
        spread: 10th and 90th percentile of it.
        shape_class: under which the winner is kept.
        trace: where an exception came from, for the JSON report.
    """

    op: str
    backend: str
    example: str
    phase: str
    state: str
    note: str = ""
    error: float | None = None
    ms: float | None = None
    spread: tuple[float, float] | None = None
    shape_class: str = ""
    trace: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def failed(self, error: Exception) -> None:
        """Note an exception: its first line, and the end of its trace."""
        self.state, self.note = "error", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self.trace = "".join(traceback.format_exception(error))[-_TRACE:]


@dataclass
class Case:
    """An example with what plain torch makes of it, and what is exact."""

    op: str
    example: Example
    device: Device
    plain: dict[str, Any] = field(default_factory=dict)
    exact: dict[str, Any] = field(default_factory=dict)

    def phases(self) -> tuple[str, ...]:
        """What is examined: the gradient only where the example has one."""
        return PHASES if self.example.gradients else PHASES[:1]

    def arguments(
        self, dtype: torch.dtype | None = None, put: Callable[[Tensor], Tensor] = copied
    ) -> Arguments:
        """Fresh arguments, with `dtype` in place of every floating type."""
        return {name: _converted(value, dtype, put) for name, value in self.example.make().items()}

    def prepare(self) -> None:
        """What plain torch and float64 say, on the CPU."""
        for phase in self.phases():
            for kept, dtype in ((self.plain, None), (self.exact, torch.float64)):
                arguments = self.arguments(dtype)
                if dtype is not None and "dtype" not in arguments and self.op == "normal":
                    arguments["dtype"] = dtype
                with use_backend("torch"):
                    kept[phase] = self.called(arguments, phase)

    def called(self, arguments: Arguments, phase: str) -> Any:
        """The op's result together with what it wrote, or the gradients."""
        function = getattr(ops, self.op)
        if phase == "forward":
            result = function(**arguments)
            written = {name: arguments.get(name) for name in self.example.written}
            return {"result": result, **written} if written else result
        return _gradients(function, arguments, self.example.gradients)

    def verdicts(self, ours: Any, arguments: Arguments, phase: str, more: float = 1.0) -> list[judge.Verdict]:
        """Ours against plain torch and float64; errors may be `more` times as large as usual."""
        plain, exact = self.plain[phase], self.exact[phase]
        own, ours = compare_of(self.op), _converted(ours, None, Tensor.cpu)
        if own is not None and phase == "forward":
            return own(arguments, ours, plain, exact)
        return judge.compare(ours, plain, exact, more * (2.0 if phase == "forward" else _GRADIENT_FACTOR))


def _converted(value: Any, dtype: torch.dtype | None, put: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {name: _converted(part, dtype, put) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [_converted(part, dtype, put) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, Tensor):
        return value
    if dtype is not None and value.is_floating_point():
        return copied(value, dtype=dtype)
    return put(value)


def _gradients(function: Callable[..., Any], arguments: Arguments, names: tuple[str, ...]) -> dict[str, Any]:
    leaves = {name: arguments[name].requires_grad_() for name in names if arguments.get(name) is not None}
    out = function(**arguments)
    generator = torch.Generator().manual_seed(11)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(weights.to(out.dtype).to(out.device))
    return {f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}


Begin = Callable[[str, str], None]


def examine(case: Case, begin: Begin, without: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Findings of every backend of an op on one example.

    Args:
        case: the example.
        begin: called with (backend, phase) before a backend is called, so that a watcher knows who crashed.
        without: backends that are left out.
    """
    begin("torch", "reference")
    case.prepare()
    right: list[Finding] = []
    for backend in dispatch.registered()[case.op]:
        if backend.name in without:
            continue
        for phase in case.phases():
            found = _judged(case, backend, phase, begin)
            if found.state == "right" and phase == "forward" and case.example.timed:
                right.append(found)
            else:
                yield found
    if right:
        _time(case, right, begin)
    yield from right


def _judged(case: Case, backend: dispatch.Backend, phase: str, begin: Begin) -> Finding:
    found = Finding(case.op, backend.name, case.example.name, phase, "right")
    if backend.missing:
        found.state, found.note = "absent", backend.missing
        return found
    begin(backend.name, phase)
    arguments = case.arguments(put=case.device.put)
    try:
        with use_backend(backend.name), dispatch.observing(_noting(found)), exact_products():
            ours = case.called(arguments, phase)
        elsewhere = backend.name == "torch" and case.device.kind != "cpu"
        verdicts = case.verdicts(ours, arguments, phase, _OTHER_TORCH if elsewhere else 1.0)
    except dispatch.NoBackend as refusal:
        found.state, found.note = "refused", "; ".join(refusal.reasons.get(backend.name, []))
        return found
    except Exception as error:
        found.failed(error)
        return found
    return _weighed(found, verdicts)


def _weighed(found: Finding, verdicts: list[judge.Verdict]) -> Finding:
    wrong = [verdict for verdict in verdicts if not verdict.right]
    if wrong:
        found.state = "wrong"
        found.note = "; ".join(f"{v.what}: error {v.error:.2g}, allowed {v.allowed:.2g}" for v in wrong)
    found.error = max((v.error / v.allowed for v in verdicts if v.allowed > 0), default=0.0)
    return found


def _noting(found: Finding) -> dispatch.Observer:
    """Notes the class of the shapes that the backends of the op see; by default each example is a class of its own."""

    def note(op: str, backend: dispatch.Backend, inputs: Mapping[str, Any]) -> AbstractContextManager[Any]:
        classes = [b.shape_class for b in dispatch.registered()[op] if b.shape_class is not None]
        if op == found.op:
            found.shape_class = classes[0](**inputs) if classes else found.example
        return nullcontext()

    return note


def _time(case: Case, findings: list[Finding], begin: Begin) -> None:
    """Time the right backends in turns."""
    calls = {found.backend: _call(case, found.backend) for found in findings}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        begin(name, "warm-up")
        for _ in range(2):
            call()
    began, names = time.perf_counter(), list(calls)
    for turn in range(_ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(case.device.time_ms(calls[name]))
        if turn + 1 >= _FEWEST_ROUNDS and time.perf_counter() - began > _MOST_S * len(calls):
            break
    for found in findings:
        taken = sorted(times[found.backend])
        found.ms = statistics.median(taken)
        found.spread = (taken[len(taken) // 10], taken[-1 - len(taken) // 10])


def _call(case: Case, backend: str) -> Callable[[], object]:
    arguments = case.arguments(put=case.device.put)
    function = getattr(ops, case.op)

    def call() -> object:
        with use_backend(backend), torch.no_grad():
            return function(**arguments)

    return call
