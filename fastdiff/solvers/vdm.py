"""VDM: ancestral sampling of a variational diffusion model (Kingma et al. 2021, arXiv 2107.00630)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable

if TYPE_CHECKING:
    from typing_extensions import Unpack


def vdm(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' = alpha' (c x0 + (1 - c) x / alpha) + sigma' sqrt(c) noise with c = 1 - SNR / SNR' (appendix A.4).

    The posterior that `ddpm` draws from, in the notation of continuous time. The step to the clean end returns x0.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        c = now.share_of_noise(then)
        kept = 0.0 if c == 1 else then.alpha * (1 - c) / now.alpha
        rows.append(grid.row(i, now, then, a=then.alpha * c, b=kept, s=then.sigma * c**0.5))
    return grid.table("vdm", rows)
