"""DDIM backwards: from an image to the noise that draws it (Song et al. 2021, arXiv 2010.02502, section 4.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastdiff.prediction import eps_coefficients
from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import Columns

if TYPE_CHECKING:
    from typing_extensions import Unpack


def ddim_inverse(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    **options: Unpack[GridOptions],
) -> StepTable:
    """Exchange the level upwards: x' = alpha' x0 + sigma' eps, over the levels of `ddim` from clean to noisy.

    The network is told the noisier level of each step, as in the step of `ddim` that this one undoes; there it gives
    eps. The image is given as `x_init`. `ddim` from the result leads back to the image, the more exactly the more
    steps.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    grid = make_grid(schedule, prediction, steps, **options)
    upwards = grid.levels[::-1]
    rows = [
        grid.row(i, then, then, **_raise(grid.prediction, now, then))
        for i, (now, then) in enumerate(zip(upwards, upwards[1:]))
    ]
    return replace(grid.table("ddim_inverse", rows), start=(1.0, 0.0), init_noise=0.0)


def _raise(prediction: str, now: Level, then: Level) -> Columns:
    """eps as the network gives it, x0 = (x - sigma eps) / alpha clamped."""
    p_x, p_m = eps_coefficients(prediction, then.alpha, then.sigma)
    read = {"u_x": (1 - now.sigma * p_x) / now.alpha, "u_m": -now.sigma * p_m / now.alpha}
    return {**read, "a": then.alpha, "b": then.sigma * p_x, "q_m": then.sigma * p_m}
