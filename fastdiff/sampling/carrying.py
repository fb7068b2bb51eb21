"""How the rows of a run are carried out: one by one, as a recording that is replayed, or with a compiled network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from fastdiff import engine
from fastdiff.engine.recorder import RecordingError, recorder_for
from fastdiff.engine.replay_cache import ReplayCache
from fastdiff.sampling.loop import Run, run
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
            long enough; a run that fails to be recorded is told in a warning and carried out row by row. True:
            recorded (on a GPU) or with the network compiled by the engine (on a CPU), or refused.

    Raises:
        ValueError: with True, saying why it cannot be done.
    """
    recorder = None if compile is False else recorder_for(x.device)
    if recorder is None:
        return run(_with_engine(task, x) if compile is True else task, x)
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
