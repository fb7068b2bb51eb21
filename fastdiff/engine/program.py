"""A program: what `torch.compile` calls instead of a captured graph. One plan for each set of input shapes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, fx, nn

from fastdiff.ops import extension

from . import capture
from .buffers import Buffers, Full
from .collector import held_back
from .live_ops import sdpa_choice
from .live_plan import LivePlan
from .normalise import exactly
from .plan import Plan
from .settings import Settings
from .tape import Tape
from .tape_writer import write
from .weights import Packed, WeightSets

log = logging.getLogger("fastdiff.engine")
_PROGRAMS: WeakSet[Program] = WeakSet()
#: Plans of one program: a number that changes at every call (a time as a Python float) must not fill the memory.
MOST_PLANS = 64
#: What a program keeps between calls for its tapes; where steps need more, calls between them do not count.
MOST_BYTES = 256 * 2**20
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


class Program:
    """A captured graph, run by plans.

    Args:
        module: what dynamo captured.
        settings: the options of the compilation.
    """

    def __init__(self, module: fx.GraphModule, settings: Settings) -> None:
        self.module, self.settings = module, settings
        self.weights = WeightSets()
        self.plans: dict[Any, Plan | LivePlan | None] = {}
        static = set(capture.weight_positions(module))
        count = len(capture.placeholders(module))
        self._weights = sorted(static)
        self._inputs = [i for i in range(count) if i not in static]
        self._numbers = capture.number_positions(module)
        self._lock, self._turn = Lock(), Lock()
        self.buffers = Buffers(MOST_BYTES)
        self.said: set[str] = set()
        _PROGRAMS.add(self)

    def __call__(self, *args: Any) -> Any:
        """Run the graph on the arguments that dynamo hands over, weights among them."""
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            self.say("gradients are wanted: this call runs in eager torch")
            return self.module(*args)
        key = self.key(args)
        plan = self.plans[key] if key in self.plans else self._plan(key, args)
        if plan is None:
            return self.module(*args)
        tensors, packed = [a for a in args if isinstance(a, Tensor)], self.packed(plan, args)
        if isinstance(plan, LivePlan) or not self._turn.acquire(blocking=False):
            return plan(tensors, packed)  # another thread is in this program's buffers: in fresh memory
        try:
            return (self._tape(plan, tensors, packed) or plan)(tensors, packed)
        finally:
            self._turn.release()

    def _tape(self, plan: Plan, tensors: Sequence[Tensor], packed: Packed) -> Tape | Literal[False]:
        if packed.tape is None:
            packed.tape = False
            try:
                if not extension.MISSING:
                    packed.tape = write(plan.live, tensors, packed, plan.moving, self.buffers)
            except Full:
                log.debug("fastdiff: steps of %d inputs are too large for a tape", len(tensors))
            except Exception:
                log.warning("fastdiff: this graph runs step by step, no tape can be written", exc_info=True)
        return packed.tape

    def packed(self, plan: Plan | LivePlan, args: Sequence[Any]) -> Packed:
        """What a plan has packed from the weights among the arguments; a live plan has packed nothing."""
        if isinstance(plan, LivePlan):
            return Packed()
        return self.weights.constants(plan.number, plan.folds, self.weights_of(args))

    def weights_of(self, args: Sequence[Any]) -> list[Tensor]:
        """The weights among the arguments of a call."""
        return [args[i] for i in self._weights]

    def key(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """What a plan is made for: shapes, strides and types of the inputs, numbers, backends of attention."""
        key = [_form(args[i]) for i in self._inputs]
        key += [exactly(args[i].item()) for i in self._numbers]
        return (
            (*key, sdpa_choice())
            if any(getattr(args[i], "is_cuda", False) for i in self._inputs)
            else tuple(key)
        )

    def _plan(self, key: tuple[Any, ...], args: Sequence[Any]) -> Plan | LivePlan | None:
        with capture.alone(), self._lock:
            if key not in self.plans and len(self.plans) >= MOST_PLANS:
                self.say(
                    f"{MOST_PLANS} sets of input sizes and numbers have plans: others run in eager torch"
                )
                return None
            if key not in self.plans:
                self.plans[key] = self._new_plan(args)
            return self.plans[key]

    def _new_plan(self, args: Sequence[Any]) -> Plan | LivePlan | None:
        try:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]
            if self.settings.live or _device(tensors) == "cuda":
                return LivePlan(capture.trace(self.module, args, keep_choice=True), self.settings, tensors)
            order = {i: k for k, i in enumerate(i for i, arg in enumerate(args) if isinstance(arg, Tensor))}
            with held_back():
                traced = capture.trace(self.module, args)
                return Plan(traced, [order[i] for i in self._weights], self.settings)
        except capture.Unsupported as reason:
            self.say(f"{reason}: this graph runs in eager torch")
        except Exception:  # whatever goes wrong before the first number, the network must run
            log.warning("fastdiff: this graph runs in eager torch, because planning it failed", exc_info=True)
        return None

    def say(self, message: str) -> None:
        """Log a message, once per program."""
        if message not in self.said:
            self.said.add(message)
            log.warning("fastdiff: %s", message)


def _form(arg: Any) -> Any:
    return (arg.shape, arg.stride(), arg.dtype, arg.device) if isinstance(arg, Tensor) else exactly(arg)


def _device(tensors: Sequence[Tensor]) -> str:
    """Where a call is computed: on the CPU or a CUDA device. Numbers of a CUDA call may lie on the CPU."""
    if any(type(t) not in _PLAIN or t.layout != torch.strided for t in tensors):
        raise capture.Unsupported("an input is not a plain dense tensor")
    if any(t.is_complex() or t.is_quantized for t in tensors):
        raise capture.Unsupported("an input is complex or quantised")
    devices = {t.device for t in tensors if t.dim() or t.device.type != "cpu"} or {torch.device("cpu")}
    if len(devices) > 1:
        raise capture.Unsupported(f"inputs are on {' and '.join(sorted(map(str, devices)))}")
    kind = devices.pop().type
    if kind not in ("cpu", "cuda"):
        raise capture.Unsupported(f"an input is on {kind}, not on a CPU or a CUDA device")
    if torch.is_autocast_enabled(kind):
        raise capture.Unsupported("autocast is on")
    return kind


def refresh(net: nn.Module) -> None:
    """Drop everything packed from the weights of a network, so that the next call packs anew.

    Dense edits are noticed without this; an edit of a few elements through `.data` may take 32 calls.

    Args:
        net: a module, compiled or not.

    Raises:
        TypeError: if `net` is not a module.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"refresh: net must be a module, got {type(net).__name__}")
    addresses = {t.data_ptr() for t in (*net.parameters(), *net.buffers())}
    for program in list(_PROGRAMS):
        program.weights.refresh(addresses)


def programs() -> list[Program]:
    """All programs that are alive."""
    return list(_PROGRAMS)
