"""Linear multistep (Adams-Bashforth) in sigma / alpha (Karras et al. 2022, k-diffusion's LMS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_eps, polynomial_integrals

if TYPE_CHECKING:
    from typing_extensions import Unpack


def lms(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    order: int = 4,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + integral of the polynomial through the last `order` slopes eps, exact for uneven steps.

    Starts with lower orders. A level of pure noise (alpha = 0) is not used as a node.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        order: 1 ... 4.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"lms: order must be 1, 2, 3 or 4, got {order}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        past = [level for level in grid.levels[max(0, i + 1 - order) : i + 1][::-1] if level.alpha > 0] or [
            now
        ]
        weights = (
            polynomial_integrals([level.ratio for level in past], now.ratio, then.ratio)
            if now.alpha
            else [0.0]
        )
        rows.append(grid.row(i, now, then, **by_eps(now, then, list(weights), i)))
    return grid.table("lms", rows, history=RING)
