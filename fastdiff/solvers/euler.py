"""Euler steps in sigma / alpha, without and with fresh noise (Karras et al. 2022; k-diffusion).

On the levels of a schedule they are DDIM with eta = 0 and eta = 1, kept under the names people know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import ancestral, towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


def euler(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + (ratio' - ratio) eps for y = x / alpha: the probability flow by first-order steps.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return grid.table(
        "euler", [grid.row(i, now, then, **towards(now, then)) for i, now, then in grid.steps()]
    )


def euler_ancestral(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 1.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """An Euler step to a lower level, then noise back up to the next.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: Share of the noise that is drawn anew, 0 ... 1.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"euler_ancestral: eta must be in [0, 1], got {eta}")
    grid = make_grid(schedule, prediction, steps, **options)
    rows = [grid.row(i, now, then, **ancestral(now, then, eta)) for i, now, then in grid.steps()]
    return grid.table("euler_ancestral", rows)
