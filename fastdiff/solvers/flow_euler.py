"""Euler steps of a rectified flow (Liu et al. 2023, arXiv 2209.03003)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.spacing import timesteps_of
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


def flow_euler(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    shift: float = 1.0,
    stochastic: bool = False,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' = x + (sigma' - sigma) (eps - x0) on levels with alpha + sigma = 1.

    Along a straight line from x0 to eps that is the exchange of the level that `euler` and `ddim` make, so it holds
    for every kind of schedule.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        shift: sigma / alpha of every visited level is multiplied by it (Esser et al. 2024, arXiv 2403.03206, eq.
            23; SD 3 uses 3). Not applied to explicit timesteps.
        stochastic: Draw the noise anew in every step: x' = alpha' x0 + sigma' noise.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not shift > 0:
        raise ValueError(f"flow_euler: shift must be > 0, got {shift}")
    if shift != 1 and options.get("timesteps") is None:
        times = timesteps_of(schedule, steps, options.pop("spacing", "trailing"))
        options["timesteps"] = list(schedule.time_at(schedule.log_snr(times) - 2 * np.log(shift)))
    grid = make_grid(schedule, prediction, steps, **options)
    rows = [
        grid.row(i, now, then, **({"a": then.alpha, "s": then.sigma} if stochastic else towards(now, then)))
        for i, now, then in grid.steps()
    ]
    return grid.table("flow_euler", rows)
