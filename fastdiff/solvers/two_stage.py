"""Two evaluations a step at the midpoint of log(sigma / alpha): DPM2 and DPM-Solver++(2S)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fastdiff.ops.row import Push
from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import Grid, GridOptions, Level, Row, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import Columns, ancestral, towards

if TYPE_CHECKING:
    from typing_extensions import Unpack

Finish = Callable[[Level, Level, Level, float], Columns]


def kdpm2(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + (ratio' - ratio) eps at the geometric middle (Karras et al. 2022; k-diffusion's DPM-2).

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return _two_stage("kdpm2", grid, 0.0, _slope_from_middle)


def kdpm2_ancestral(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 1.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """As `kdpm2` to a lower level, then noise back up to the next.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: Share of the noise that is drawn anew, 0 ... 1.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return _two_stage("kdpm2_ancestral", grid, eta, _slope_from_middle)


def dpmpp_2s(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 0.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """DPM-Solver++(2S): x0 at the middle of log(alpha / sigma) (Lu et al. 2022, arXiv 2211.01095, algorithm 1).

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: Share of the noise that is drawn anew, 0 ... 1; above 0 it is k-diffusion's ancestral form.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return _two_stage("dpmpp_2s", grid, eta, _x0_from_middle)


def _two_stage(name: str, grid: Grid, eta: float, finish: Finish) -> StepTable:
    """Rows of a midpoint method; steps to the clean end and from pure noise (alpha = 0) take one stage."""
    if not 0 <= eta <= 1:
        raise ValueError(f"{name}: eta must be in [0, 1], got {eta}")
    rows: list[Row] = []
    for _, now, then in grid.steps():
        one_stage = ancestral(now, then, eta)
        if then.clean or now.alpha == 0:
            rows.append(grid.row(len(rows), now, then, **one_stage))
            continue
        low = float(np.sqrt(then.ratio**2 - (one_stage["s"] / then.alpha) ** 2))
        middle = grid.between(-float(np.log(now.ratio) + np.log(low)))
        rows.append(grid.row(len(rows), now, middle, **towards(now, middle), push_0=Push.X))
        rows.append(grid.row(len(rows), middle, then, **finish(now, middle, then, low), s=one_stage["s"]))
    return grid.table(name, rows, history=1)


def _slope_from_middle(now: Level, middle: Level, then: Level, low: float) -> Columns:
    """y' = y + (low - ratio) eps of the middle."""
    step = then.alpha * (low - now.ratio) / middle.sigma
    return {"h_0": then.alpha / now.alpha, "b": step, "a": -step * middle.alpha}


def _x0_from_middle(now: Level, middle: Level, then: Level, low: float) -> Columns:
    """y' = (low / ratio) y + (1 - low / ratio) x0 of the middle."""
    kept = low / now.ratio
    return {"h_0": kept * then.alpha / now.alpha, "a": then.alpha * (1 - kept)}
