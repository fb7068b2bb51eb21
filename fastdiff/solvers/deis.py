"""DEIS: exponential Adams steps on eps, polynomials in log(sigma / alpha) (Zhang and Chen 2023, arXiv 2204.13902)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_eps, exponential_integrals

if TYPE_CHECKING:
    from typing_extensions import Unpack


def deis(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    order: int = 3,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + integral over ratio of the polynomial through the last `order` values of eps in log(ratio).

    Starts with lower orders; the step to the clean end returns x0, and below 15 steps the one before has order 2.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        order: 1 ... 3.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"deis: order must be 1, 2 or 3, got {order}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        past = [level.lam for level in grid.levels[max(0, i + 1 - order) : i + 1][::-1] if level.alpha > 0]
        if then.clean or now.alpha == 0:
            past = past[:1]
        elif len(grid) < 15 and i == len(grid) - 2:
            past = past[:2]
        weights = (
            [then.ratio - now.ratio]
            if len(past) < 2
            else -now.ratio * exponential_integrals(past, now.lam, then.lam, -1)
        )
        rows.append(grid.row(i, now, then, **by_eps(now, then, list(weights), i)))
    return grid.table("deis", rows, history=RING)
