"""Solvers: functions (schedule, prediction, steps, ...) -> StepTable.

`SOLVERS` lists them by name. Any function of your own that returns a `StepTable` is accepted wherever a name is.
"""

from __future__ import annotations

from collections.abc import Callable

from fastdiff.solvers.ddim import ddim
from fastdiff.solvers.ddpm import ddpm
from fastdiff.solvers.grid import Grid, GridOptions, Level, make_grid
from fastdiff.solvers.spacing import SPACINGS, timesteps_of
from fastdiff.solvers.table import StepTable

Solver = Callable[..., StepTable]
SOLVERS: dict[str, Solver] = {"ddim": ddim, "ddpm": ddpm}

__all__ = [
    "SOLVERS",
    "SPACINGS",
    "Grid",
    "GridOptions",
    "Level",
    "StepTable",
    "ddim",
    "ddpm",
    "make_grid",
    "solver_named",
    "timesteps_of",
]


def solver_named(name: str) -> Solver:
    """The solver called `name`; a ValueError that lists them when there is none."""
    if name not in SOLVERS:
        raise ValueError(f"solvers: solver must be one of {', '.join(SOLVERS)}, got {name!r}")
    return SOLVERS[name]
