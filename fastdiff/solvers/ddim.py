"""DDIM: the deterministic sampler, and with eta > 0 its stochastic family (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import ancestral

if TYPE_CHECKING:
    from typing_extensions import Unpack


def ddim(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 0.0,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s noise, with eps re-derived from the clamped x0 (eq. 12, 16).

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: 0 is deterministic, 1 adds the noise of DDPM's small variance.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"ddim: eta must be in [0, 1], got {eta}")
    grid = make_grid(schedule, prediction, steps, **options)
    return grid.table(
        "ddim", [grid.row(i, now, then, **ancestral(now, then, eta)) for i, now, then in grid.steps()]
    )
