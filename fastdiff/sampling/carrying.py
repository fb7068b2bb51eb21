"""How the rows of a run are carried out: one by one, or as a recording that is replayed."""

from __future__ import annotations

import warnings

from torch import Tensor

from fastdiff.engine.recorder import RecordingError, recorder_for
from fastdiff.sampling.loop import Run, run
from fastdiff.sampling.recorded import reasons, run_recorded

#: "auto" records runs of at least so many rows; a recording costs about three evaluations.
AUTO_ROWS = 10


def carry_out(task: Run, x: Tensor, compile: bool | str) -> Tensor:
    """Carry out a run from x (B, ...).

    Args:
        task: The run.
        x: Initial state.
        compile: False: one row after the other. "auto": recorded where the device can, the run allows it and it is
            long enough; a run that fails to be recorded is told in a warning and carried out row by row. True:
            recorded, or refused.

    Raises:
        ValueError: with True, saying why the run cannot be recorded.
    """
    recorder = None if compile is False else recorder_for(x.device)
    told = (
        [f"{x.device} records nothing, CUDA graphs need an NVIDIA GPU"]
        if recorder is None
        else reasons(task, x)
    )
    if recorder is not None and not told and (compile is True or len(task.table) >= AUTO_ROWS):
        try:
            return run_recorded(task, x, recorder)
        except RecordingError as error:
            told = [str(error)]
            if compile == "auto":
                warnings.warn(f"sample: rows are carried out one by one, because {error}", stacklevel=2)
    if compile is True:
        raise ValueError(f"sample: compile must be 'auto' or False here, because {'; '.join(told)}, got True")
    return run(task, x)
