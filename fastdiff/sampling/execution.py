"""How a run is executed: row by row, as a recording that is replayed, or with a compiled network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from fastdiff import engine
from fastdiff.engine.recorder import RecordingError, recorder_for
from fastdiff.engine.replay_cache import ReplayCache
from fastdiff.ops.dispatch import forced_backend
from fastdiff.sampling.compile_rule import worth_compiling
from fastdiff.sampling.loop import Run, run
from fastdiff.sampling.recorded import reasons, run_recorded

#: "auto" records runs of at least so many rows; a recording costs about three evaluations.
AUTO_ROWS = 10
_COMPILED: ReplayCache[Callable[..., Tensor]] = ReplayCache(most=4)


def execute(task: Run, x: Tensor, compile: bool | str) -> Tensor:
    """Execute a run from x (B, ...).

    Args:
        task: The run.
        x: Initial state.
        compile: False executes one row after another. "auto" records on a device that can, if the run allows it and
            is long enough; if the recording fails, it warns and continues row by row. On a CPU it compiles the network
            if `worth_compiling` says so. True records (on a GPU) or compiles (on a CPU), or raises.

    Raises:
        ValueError: with True, if neither is possible; the message says why.
    """
    recorder = None if compile is False else recorder_for(x.device)
    if recorder is None:
        wanted = compile is True or (compile == "auto" and _worth_compiling(task, x))
        return run(_with_engine(task, x) if wanted else task, x)
    told = reasons(task, x)
    if not told and (compile is True or len(task.table) >= AUTO_ROWS):
        try:
            return run_recorded(task, x, recorder)
        except RecordingError as error:
            told = [str(error)]
            if compile == "auto":
                warnings.warn(f"sample: rows run one by one, because {error}", stacklevel=2)
    if compile is True:
        raise ValueError(f"sample: compile must be 'auto' or False here, because {'; '.join(told)}, got True")
    return run(task, x)


def _worth_compiling(task: Run, x: Tensor) -> bool:
    """Whether "auto" compiles: a long run of a large network, with none of the special options."""
    evaluate = task.evaluate
    special = (
        evaluate.weak,
        evaluate.classifier,
        evaluate.autocast,
        evaluate.one_by_one or None,
        forced_backend(),
    )
    able = x.device.type == "cpu" and engine.graph_ops.CONVOLVES and len(task.table) >= AUTO_ROWS
    if not able or any(one is not None for one in special):
        return False
    return worth_compiling(
        evaluate.net, x, evaluate.inputs, len(task.table), 1 if evaluate.null is None else 2
    )


def _with_engine(task: Run, x: Tensor) -> Run:
    """The run with its networks compiled."""
    if x.device.type != "cpu":
        raise ValueError(f"sample: compile must be 'auto' or False on {x.device}, got True")
    evaluate = task.evaluate
    weak = None if evaluate.weak is None else _compiled(evaluate.weak)
    return replace(task, evaluate=replace(evaluate, net=_compiled(evaluate.net), weak=weak))


def _compiled(net: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if not isinstance(net, nn.Module):
        raise ValueError("sample: compile must be False for a network that is not a torch module, got True")
    return _COMPILED.get(("engine", _hooks(net)), [net], lambda: engine.compile(net))


def _hooks(net: nn.Module) -> tuple[bool, ...]:
    """Which parts of a network have hooks: torch.compile does not look whether a part that had none gets one."""
    return tuple(bool(part._forward_hooks or part._forward_pre_hooks) for part in net.modules())
