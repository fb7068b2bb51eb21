"""Heun's method with churn (Karras et al. 2022, arXiv 2206.00364, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.ops.row import Push, make_row
from fastdiff.rng import Stream
from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import Grid, GridOptions, Level, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import Columns, pushed_eps, towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


def heun(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + (ratio' - ratio) (eps + eps') / 2 from a level that churn has raised; two evaluations a step.

    Churn noise of step k + 1 rides in the second stage of step k; the first needs a row without network. The step to
    the clean end, and one from pure noise (alpha = 0), are Euler's.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps; 2 steps - 1 evaluations.
        s_churn: Noise added before each step raises ratio by min(s_churn / steps, sqrt(2) - 1) of itself.
        s_tmin: Lowest ratio = sigma / alpha that is churned.
        s_tmax: Highest ratio that is churned.
        s_noise: Factor on the churn noise.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not (s_churn >= 0 and s_noise >= 0 and 0 <= s_tmin <= s_tmax):
        raise ValueError(
            f"heun: churn must be >= 0 and s_tmin <= s_tmax, got {s_churn}, {s_noise}, {s_tmin}, {s_tmax}"
        )
    grid = make_grid(schedule, prediction, steps, **options)
    gamma = min(s_churn / len(grid), 2**0.5 - 1)
    churned = [
        _raised(grid, level, gamma if s_tmin <= level.ratio <= s_tmax else 0.0) for level in grid.levels
    ]
    first = _with_churn({"b": 1.0}, grid.levels[0], churned[0], s_noise, 0)
    rows = [make_row(**first)] if churned[0] is not grid.levels[0] else []
    for i, now, then in zip(range(len(grid)), churned, grid.levels[1:]):
        stages = _stages(now, then)
        for stage, (level, columns) in enumerate(stages):
            last = stage == len(stages) - 1
            goal, to = (
                (churned[i + 1], _with_churn(columns, then, churned[i + 1], s_noise, i + 1))
                if last
                else (then, columns)
            )
            rows.append(grid.row(len(rows), level, goal, **to))
    return grid.table("heun", rows, history=2)


def _stages(now: Level, then: Level) -> list[tuple[Level, Columns]]:
    """The one or two rows of a step: where the network is evaluated, and what follows."""
    euler = towards(now, then)
    if then.clean or now.alpha == 0:
        return [(now, euler)]
    pushes = {"push_0": Push.X, "push_0_slot": 0, "push_1": Push.EPS, "push_1_slot": 1, **pushed_eps(now)}
    half = then.alpha * (then.ratio - now.ratio) / 2
    own = {"b": half / then.sigma, "a": -half * then.alpha / then.sigma}
    return [
        (now, {**euler, **pushes}),
        (then, {**own, "h_0": then.alpha / now.alpha, "slot_0": 0, "h_1": half, "slot_1": 1}),
    ]


def _raised(grid: Grid, level: Level, gamma: float) -> Level:
    if gamma == 0 or level.clean or level.alpha == 0:
        return level
    return grid.between(level.log_snr - 2 * float(np.log1p(gamma)))


def _with_churn(columns: Columns, level: Level, raised: Level, s_noise: float, index: int) -> Columns:
    """Columns that lead to `level`, continued by noise up to `raised`."""
    if raised is level:
        return columns
    factor = raised.alpha / level.alpha
    scaled = {k: v * factor if k in ("b", "a", "h_0", "h_1") else v for k, v in columns.items()}
    s = s_noise * raised.alpha * (raised.ratio**2 - level.ratio**2) ** 0.5
    return {
        **scaled,
        "s": s,
        "stream": Stream.CHURN,
        "noise_row": index,
        "i_y": raised.alpha,
        "i_s": raised.sigma,
    }
