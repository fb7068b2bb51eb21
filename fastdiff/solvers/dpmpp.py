"""Multistep DPM-Solver++ on x0 (Lu et al. 2022, arXiv 2211.01095), in log(alpha / sigma)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import Grid, GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_x0, exponential_integrals

if TYPE_CHECKING:
    from typing_extensions import Unpack


def dpmpp_2m(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """Second order from two estimates of x0; the first step and the one to the clean end are first order.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return _multistep("dpmpp_2m", grid, 2, False)


def dpmpp_3m(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    full_third_order: bool = False,
    **options: Unpack[GridOptions],
) -> StepTable:
    """From three estimates of x0. Below 15 steps the one before the last has order 2.

    As published (and in diffusers and k-diffusion) it carries half of the last term and converges at order 2.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        full_third_order: Carry the whole term: order 3.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    return _multistep("dpmpp_3m", grid, 3, full_third_order)


def _multistep(name: str, grid: Grid, order: int, full: bool) -> StepTable:
    rows = []
    for i, now, then in grid.steps():
        lams = [level.lam for level in grid.levels[max(0, i + 1 - order) : i + 1][::-1] if level.alpha > 0]
        if then.clean or now.alpha == 0:
            lams = lams[:1]
        elif len(grid) < 15 and i == len(grid) - 2:
            lams = lams[:2]
        rows.append(grid.row(i, now, then, **by_x0(now, then, _weights(lams, then.lam, full), i)))
    return grid.table(name, rows, history=RING)


def _weights(lams: list[float], stop: float, full: bool) -> list[float]:
    """Weights of x0 at lams (newest first) for the step to `stop`, in the form of the paper."""
    if len(lams) < 2:
        return [1.0 if np.isinf(stop) or not lams else -float(np.expm1(lams[0] - stop))]
    h = stop - lams[0]
    phi, r0 = -float(np.expm1(-h)), (lams[0] - lams[1]) / h
    if len(lams) == 2:
        return [phi * (1 + 0.5 / r0), -phi * 0.5 / r0]
    if full:
        return list(exponential_integrals(lams, lams[0], stop, 1))
    r1 = (lams[1] - lams[2]) / h
    slope = np.array([1 / r0, -1 / r0, 0.0])
    bend = (slope - np.array([0.0, 1 / r1, -1 / r1])) / (r0 + r1)
    first, second = 1 - phi / h, 0.5 - (h - phi) / h**2
    return list(np.array([phi, 0.0, 0.0]) + first * (slope + r0 * bend) + second * bend)
