"""iPNDM: Adams-Bashforth with constant coefficients on eps (Zhang and Chen 2023, arXiv 2204.13902)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_eps

if TYPE_CHECKING:
    from typing_extensions import Unpack


COEFFICIENTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def ipndm(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    order: int = 4,
    **options: Unpack[GridOptions],
) -> StepTable:
    """y' = y + (ratio' - ratio) times the Adams-Bashforth combination of the last `order` slopes eps.

    Starts with lower orders; the step to the clean end returns x0.

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
        raise ValueError(f"ipndm: order must be 1, 2, 3 or 4, got {order}")
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        usable = sum(level.alpha > 0 for level in grid.levels[: i + 1])
        known = 1 if then.clean else max(1, min(order, usable))
        weights = [(then.ratio - now.ratio) * c for c in COEFFICIENTS[known - 1]]
        rows.append(grid.row(i, now, then, **by_eps(now, then, weights, i)))
    return grid.table("ipndm", rows, history=RING)
