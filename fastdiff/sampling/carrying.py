"""How the rows of a run are carried out: one by one, as a recording that is replayed, or with a compiled network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from fastdiff import engine
from fastdiff.engine.recorder import RecordingError, recorder_for
from fastdiff.engine.replay_cache import ReplayCache
from fastdiff.ops.dispatch import forced_backend
from fastdiff.sampling.loop import Run, run
from fastdiff.sampling.paying import pays
from fastdiff.sampling.recorded import reasons, run_recorded

#: "auto" records runs of at least so many rows; a recording costs about three evaluations.
AUTO_ROWS = 10
_COMPILED: ReplayCache[Callable[..., Tensor]] = ReplayCache(most=4)


def carry_out(task: Run, x: Tensor, compile: bool | str) -> Tensor:
    """Carry out a run from x (B, ...).

    Args:
        task: The run.
        x: Initial state.
        compile: False: one row after the other. "auto": recorded where the device can, the run allows it and it is
            long enough; a run that fails to be recorded is told in a warning and carried out row by row. On a CPU
            the network is compiled where the rule of `paying` says that it pays. True: recorded (on a GPU) or with
            the network compiled by the engine (on a CPU), or refused.

    Raises:
        ValueError: with True, saying why it cannot be done.
    """
    recorder = None if compile is False else recorder_for(x.device)
    if recorder is None:
        return run(
            _with_engine(task, x) if compile is True or (compile == "auto" and _pays(task, x)) else task, x
        )
    told = reasons(task, x)
    if not told and (compile is True or len(task.table) >= AUTO_ROWS):
        try:
            return run_recorded(task, x, recorder)
        except RecordingError as error:
            told = [str(error)]
            if compile == "auto":
                warnings.warn(f"sample: rows are carried out one by one, because {error}", stacklevel=2)
    if compile is True:
        raise ValueError(f"sample: compile must be 'auto' or False here, because {'; '.join(told)}, got True")
    return run(task, x)


def _pays(task: Run, x: Tensor) -> bool:
    """Whether to compile without being asked: a long run of a large network that nothing special is done with."""
    evaluate = task.evaluate
    special = (
        evaluate.weak,
        evaluate.classifier,
        evaluate.autocast,
        evaluate.one_by_one or None,
        forced_backend(),
    )
    able = x.device.type == "cpu" and engine.kernels.CONVOLVES and len(task.table) >= AUTO_ROWS
    if not able or any(one is not None for one in special):
        return False
    return pays(evaluate.net, x, evaluate.inputs, len(task.table), 1 if evaluate.null is None else 2)


def _with_engine(task: Run, x: Tensor) -> Run:
    """The run with its networks compiled."""
    if x.device.type != "cpu":
        raise ValueError(f"sample: compile must be 'auto' or False on {x.device}, got True")
    evaluate = task.evaluate
    weak = None if evaluate.weak is None else _compiled(evaluate.weak)
    return replace(task, evaluate=replace(evaluate, net=_compiled(evaluate.net), weak=weak))


def _compiled(net: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if not isinstance(net, nn.Module):
        raise ValueError("sample: compile must be False for a network that is no torch module, got True")
    return _COMPILED.get("engine", [net], lambda: engine.compile(net))
