"""Few-step samplers of distilled networks: LCM (arXiv 2310.04378) and TCD (arXiv 2402.19159)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, levels_at, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


SIGMA_DATA = 0.5


def lcm(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    timestep_scaling: float | None = None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' = alpha' f + sigma' noise, f the consistency function of the network (Luo et al. 2023, algorithm 3).

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        timestep_scaling: None takes f = x0. A number k takes f = c_skip x + c_out x0 with c_skip =
            0.25 / ((k t)^2 + 0.25), c_out = k t / sqrt((k t)^2 + 0.25); the published networks were distilled with
            10, where f differs from x0 only near t = 0 (and is x itself there).
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if timestep_scaling is not None and not timestep_scaling > 0:
        raise ValueError(f"lcm: timestep_scaling must be None or > 0, got {timestep_scaling}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        c_skip, c_out = _boundary(now.t, timestep_scaling)
        rows.append(grid.row(i, now, then, b=then.alpha * c_skip, a=then.alpha * c_out, s=then.sigma))
    return grid.table("lcm", rows)


def _boundary(t: float, scaling: float | None) -> tuple[float, float]:
    """(c_skip, c_out)."""
    if scaling is None:
        return 0.0, 1.0
    norm = (scaling * t) ** 2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / norm, scaling * t / norm**0.5


def tcd(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    gamma: float = 0.3,
    **options: Unpack[GridOptions],
) -> StepTable:
    """To time (1 - gamma) t' without noise, then forward in noise to t' (Zheng et al. 2024, algorithm 4).

    The step to the clean end returns x0.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        gamma: 0 is deterministic, 1 draws nearly all noise anew.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"tcd: gamma must be in [0, 1], got {gamma}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        low = then if then.clean else _below(schedule, then, gamma)
        step, factor = towards(now, low), then.alpha / low.alpha
        fresh = then.alpha * max(then.ratio**2 - low.ratio**2, 0.0) ** 0.5
        rows.append(grid.row(i, now, then, b=step["b"] * factor, a=step["a"] * factor, s=fresh))
    return grid.table("tcd", rows)


def _below(schedule: Schedule, level: Level, gamma: float) -> Level:
    """The level at the share 1 - gamma of this one's time, at a whole time of a discrete schedule."""
    time = schedule.t_min + (1 - gamma) * (level.t - schedule.t_min)
    if gamma == 0:
        return level
    return levels_at(schedule, [float(np.floor(time)) if schedule.discrete else time])[0]
