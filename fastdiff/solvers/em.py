"""EM: Euler-Maruyama from the reverse SDE to the probability flow (Song et al. 2021, arXiv 2011.13456)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import Columns, ancestral, towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


def em(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    flow: float = 0.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' = x (1 + B / 2) + (1 - flow / 2) B score + sqrt((1 - flow) B) noise, B = the step's integral of beta.

    Written for alpha^2 + sigma^2 = 1; states of other kinds are scaled there and back. Steps to the clean end and
    from pure noise (alpha = 0), where B is infinite, exchange the level instead. First order: it wants many steps.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        flow: 0 is the reverse SDE, 1 the probability flow, between is a mixture.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not 0 <= flow <= 1:
        raise ValueError(f"em: flow must be in [0, 1], got {flow}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        ended = towards(now, then) if then.clean else ancestral(now, then, (1 - flow) ** 0.5)
        step = ended if then.clean or now.alpha == 0 else _euler_maruyama(now, then, flow)
        rows.append(grid.row(i, now, then, **step))
    return grid.table("em", rows)


def _euler_maruyama(now: Level, then: Level, flow: float) -> Columns:
    norm, norm_then = (float(np.hypot(level.alpha, level.sigma)) for level in (now, then))
    beta = 2 * float(np.log(then.alpha / norm_then) - np.log(now.alpha / norm))
    score = (1 - flow / 2) * beta * norm / now.sigma  # of -eps, in units of the scaled state
    kept = (1 + beta / 2) / norm - score / now.sigma
    step = {"b": norm_then * kept, "a": norm_then * score * now.alpha / now.sigma}
    return {**step, "s": norm_then * ((1 - flow) * beta) ** 0.5}
