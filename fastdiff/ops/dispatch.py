"""Choice of a backend for one call of an op.

Each op lists its backends in order of preference. A backend answers `reasons(**inputs)`: an empty list means that
it can run this call. The first that can is taken; `use_backend` or the variable ``FASTDIFF_BACKEND`` leave only one
to choose from. Where `fastdiff doctor` has found another backend the fastest on this device for calls of this class
(`winners`), that one is asked first. When none can run, the error names the inputs and the reasons of every backend.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import extension, winners
from .arguments import wants_gradient

BACKENDS = ("cuda", "triton", "cpp", "torch")
#: What runs where.
_RUNS = {"cpu": ("cpp", "torch"), "cuda": ("cuda", "triton", "torch")}
_OPS: dict[str, tuple[Backend, ...]] = {}
#: Gives the class of a call, from its inputs by keyword; see `shape_classes`.
ShapeClass = Callable[..., str]


@dataclass(frozen=True)
class Backend:
    """One way to run an op.

    Attributes:
        name: one of `BACKENDS`.
        run: the implementation; takes the op's inputs by keyword.
        reasons: why it cannot run these inputs, in words; empty when it can.
        missing: why it can run nothing at all here (not built, no device); empty when it can.
        verifies: it refuses wrong inputs itself with a `RuntimeError`, before it writes anything.
        refuses: among tensors on the CPU that want no gradient it refuses so whatever it has a reason against, too; its
            reasons are asked for only then, which saves a third of a small call.
        waits: it stands back unless forced, until `fastdiff doctor` has found it the fastest on the device.
        shape_class: of the op; `register` sets it.
    """

    name: str
    run: Callable[..., Any]
    reasons: Callable[..., list[str]]
    missing: str = ""
    verifies: bool = False
    refuses: bool = False
    waits: bool = False
    shape_class: ShapeClass | None = None


class NoBackend(ValueError):
    """No backend can run an op's inputs.

    Attributes:
        reasons: by backend, why it cannot.
    """

    def __init__(self, message: str, reasons: dict[str, list[str]]) -> None:
        super().__init__(message)
        self.reasons = reasons


def _checked(name: str, place: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{place}: backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def _from_environment() -> str | None:
    name = os.environ.get("FASTDIFF_BACKEND", "")
    return _checked(name, "FASTDIFF_BACKEND") if name else None


_forced: str | None = _from_environment()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force one backend ("torch", "cpp", "triton" or "cuda") for all ops inside the block, in the whole process.

    A call that this backend cannot run raises a `ValueError` with its reasons instead of falling back.
    """
    global _forced
    before, _forced = _forced, _checked(name, "use_backend")
    try:
        yield
    finally:
        _forced = before


def forced_backend() -> str | None:
    """The backend that `use_backend` or ``FASTDIFF_BACKEND`` forces, if any."""
    return _forced


#: Called with (op, backend, inputs) around every call of a backend.
Observer = Callable[[str, Backend, Mapping[str, Any]], AbstractContextManager[Any]]
_observer: Observer | None = None


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let an observer's context stand around every call of a backend inside the block, in the whole process."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def _called(op: str, backend: Backend, inputs: Mapping[str, Any]) -> Any:
    if _observer is None:
        return backend.run(**inputs)
    with _observer(op, backend, inputs):
        return backend.run(**inputs)


def register(op: str, *backends: Backend, shape_class: ShapeClass | None = None) -> tuple[Backend, ...]:
    """Record the backends of an op, best first; returns them, one that its extension lacks marked as missing.

    Args:
        op: its name.
        backends: best first.
        shape_class: the class of a call that `_check` has passed; without it nothing the doctor found is used.
    """
    _OPS[op] = tuple(
        replace(b, missing=b.missing or extension.outdated(op, b.name), shape_class=shape_class)
        for b in backends
    )
    return _OPS[op]


def shape_class(op: str, inputs: Mapping[str, Any]) -> str:
    """The class under which the winner for a call is kept; empty where the op has none."""
    of = _OPS[op][0].shape_class
    return of(**inputs) if of is not None else ""


def load() -> None:
    """Import every op of this package, so that all are registered."""
    package = importlib.import_module(__package__ or "fastdiff.ops")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def registered() -> Mapping[str, tuple[Backend, ...]]:
    """All ops with their backends, best first."""
    return dict(_OPS)


def _why_not(backend: Backend, inputs: Mapping[str, Any]) -> list[str]:
    if backend.missing:
        return [backend.missing]
    return backend.reasons(**inputs)


def default(op: str, kind: str) -> str:
    """The backend that serves ordinary calls of an op on a kind of device where nobody has found out more."""
    can = [b.name for b in _OPS[op] if not (b.missing or b.waits) and b.name in _RUNS.get(kind, ())]
    return can[0] if can else ""


def _led(op: str) -> bool:
    """Whether the doctor has found anything about an op that would not be done anyway."""
    if op not in _LED:
        _LED[op] = any(
            won != default(op, kind) for kind, found in winners.here() for won in found.get(op, {}).values()
        )
    return _LED[op]


#: Kept, because it is asked at every call.
_LED: dict[str, bool] = {}
winners.on_change(_LED.clear)
winners.constant(_led)


def _winner(op: str, inputs: Mapping[str, Any]) -> str:
    """The backend found to be the fastest for such a call; empty where none was, or where a gradient is wanted."""
    device = next((value.device for value in inputs.values() if isinstance(value, Tensor)), None)
    if device is None or wants_gradient(*inputs.values()):
        return ""
    return winners.winner(op, shape_class(op, inputs), device.type, device.index)


def _passed(inputs: Mapping[str, Any]) -> None:
    """The check of inputs that were checked before."""


def _ordinary(inputs: Mapping[str, Any]) -> bool:
    """Whether all tensors are on the CPU and none wants a gradient."""
    recording = torch.is_grad_enabled()
    for value in inputs.values():
        if isinstance(value, Tensor) and not (value.is_cpu and not (recording and value.requires_grad)):
            return False
    return True


def straight(op: str, *tensors: Tensor | None) -> bool:
    """Whether a call may go to a C++ kernel that refuses wrong inputs itself, without the questions of `run`.

    Nothing forces, traces or observes it, nobody has found another backend faster, and all tensors are on the CPU.
    What the kernel then refuses goes through `run`, which says why. Most of the time of a small call are questions.

    Args:
        op: name of the op.
        tensors: all that the call has.
    """
    if torch.compiler.is_compiling() or _forced is not None or _observer is not None or _led(op):
        return False
    for t in tensors:  # noqa: SIM110 (a generator takes longer than the questions)
        if t is not None and not (isinstance(t, Tensor) and t.is_cpu):
            return False
    return True


def run(
    op: str,
    backends: tuple[Backend, ...],
    inputs: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], None],
) -> Any:
    """Run the first backend that can, or raise a `ValueError` that says why none can.

    Args:
        op: name of the op.
        backends: best first.
        inputs: by keyword.
        check: raises `TypeError` or `ValueError` in words for inputs that no backend may see. A backend that verifies
            its inputs itself is called at once, and the check only explains what it refused.
    """
    best = _forced or ""
    if not best and _led(op):
        check(inputs)
        check, best = _passed, _winner(op, inputs)
        backends = (*(b for b in backends if b.name == best), *(b for b in backends if b.name != best))
    for backend in backends:
        if backend.missing or (backend.name != best and (_forced is not None or backend.waits)):
            continue
        if backend.verifies and not torch.compiler.is_compiling():
            try:
                if (backend.refuses and _ordinary(inputs)) or not _why_not(backend, inputs):
                    return _called(op, backend, inputs)
            except Exception:
                check(inputs)
                if not (backend.refuses and backend.reasons(**inputs)):
                    raise
            continue
        check(inputs)
        if not _why_not(backend, inputs):
            return _called(op, backend, inputs)
    check(inputs)
    raise _refusal(op, backends, inputs)


def _refusal(op: str, backends: tuple[Backend, ...], inputs: Mapping[str, Any]) -> NoBackend:
    reasons = {backend.name: _why_not(backend, inputs) for backend in backends}
    for backend in backends:
        if backend.waits and not reasons[backend.name]:
            reasons[backend.name] = ["`fastdiff doctor` has not found it the fastest for such a call"]
    lines = [f"{op}: no backend can run these inputs:"]
    for name, value in inputs.items():
        if isinstance(value, Tensor):
            lines.append(
                f"  {name}: {tuple(value.shape)} {value.dtype} {value.device} strides {value.stride()}"
            )
    for backend in backends:
        if _forced is not None and backend.name != _forced:
            lines.append(f"`{backend.name}`: not chosen, because `{_forced}` is forced")
        else:
            lines.append(f"`{backend.name}`: " + "; ".join(reasons[backend.name]))
    if _forced is not None and all(backend.name != _forced for backend in backends):
        lines.append(f"`{_forced}`: {op} has no such backend")
    return NoBackend("\n".join(lines), reasons)
