"""PNDM: pseudo linear multistep on eps (Liu et al. 2022, arXiv 2202.09778), the default of Stable Diffusion 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.ops.row import Push
from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import Grid, GridOptions, Level, Row, levels_at, make_grid
from fastdiff.solvers.ipndm import COEFFICIENTS
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, Columns, by_eps, pushed_eps, towards

if TYPE_CHECKING:
    from typing_extensions import Unpack


WARMUPS = ("plms", "runge_kutta")
SAVED_X, SAVED_EPS = RING, RING + 1  # slots after the ring of eps


def pndm(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    warmup: str = "plms",
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + (ratio' - ratio) times the Adams-Bashforth combination of the last four slopes eps.

    "plms" (PLMS, skip_prk_steps of diffusers) begins with one improved Euler step, two evaluations, and grows;
    "runge_kutta" begins with up to three steps of four evaluations each. A step from pure noise (alpha = 0) is
    Euler's.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        warmup: "plms" or "runge_kutta".
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if warmup not in WARMUPS:
        raise ValueError(f"pndm: warmup must be plms or runge_kutta, got {warmup!r}")
    grid = make_grid(schedule, prediction, steps, **options)
    rows: list[Row] = []
    known = 0
    for _, now, then in grid.steps():
        if now.alpha == 0:
            rows.append(grid.row(len(rows), now, then, **towards(now, then)))
            continue
        if warmup == "runge_kutta" and known < RING and not then.clean:
            rows += _runge_kutta(grid, now, then, len(rows), known)
        else:
            weights = [(then.ratio - now.ratio) * c for c in COEFFICIENTS[min(known, RING)]]
            rows.append(grid.row(len(rows), now, then, **by_eps(now, then, weights, known)))
            if known == 0 and not then.clean:
                rows.append(grid.row(len(rows), then, then, **_improved(now, then)))
        known += 1
    return grid.table("pndm", rows, history=RING + 2 if warmup == "runge_kutta" else RING)


def _improved(now: Level, then: Level) -> Columns:
    """From the end of an Euler step to that of the step with the mean of both slopes."""
    half = then.alpha * (then.ratio - now.ratio) / 2
    return {**_slope(half, then, 1.0), "h_0": -half, "slot_0": 0}


def _slope(weight: float, level: Level, b: float = 0.0) -> Columns:
    """b x + weight eps at a level."""
    return {"b": b + weight / level.sigma, "a": -weight * level.alpha / level.sigma}


def _runge_kutta(grid: Grid, now: Level, then: Level, index: int, known: int) -> list[Row]:
    """Four stages over the middle of the time; the third slope is recovered from the state it has led to."""
    middle = levels_at(grid.schedule, [_middle(grid.schedule, now.t, then.t)])[0]
    start = {"push_0": Push.EPS, "push_0_slot": known, "push_1": Push.X, "push_1_slot": SAVED_X}
    second = middle.alpha * (middle.ratio - now.ratio)
    third = then.alpha * (then.ratio - now.ratio)
    stages: list[tuple[Level, Level, Columns]] = [
        (now, middle, {**towards(now, middle), **start, **pushed_eps(now)}),
        (
            middle,
            middle,
            {
                **_slope(second, middle),
                **pushed_eps(middle),
                **{"h_0": middle.alpha / now.alpha, "slot_0": SAVED_X},
                **{"push_0": Push.EPS, "push_0_slot": SAVED_EPS},
            },
        ),
        (middle, then, {**_slope(third, middle), "h_0": then.alpha / now.alpha, "slot_0": SAVED_X}),
        (
            then,
            then,
            {
                **_slope(third / 6, then, 1 / 3),
                **{"h_0": 2 / 3 * then.alpha / now.alpha, "slot_0": SAVED_X},
                **{"h_1": third / 6, "slot_1": known, "h_2": third / 3, "slot_2": SAVED_EPS},
            },
        ),
    ]
    return [grid.row(index + k, at, goal, **columns) for k, (at, goal, columns) in enumerate(stages)]


def _middle(schedule: Schedule, start: float, stop: float) -> float:
    """Half the time; a whole one of a discrete schedule where there is one between."""
    half = (start + stop) / 2
    return float(np.floor(half)) if schedule.discrete and start - stop >= 2 else half
