"""DDPM: ancestral sampling from the posterior of the forward chain (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, make_grid
from fastdiff.solvers.table import StepTable

if TYPE_CHECKING:
    from typing_extensions import Unpack

VARIANCES = ("fixed_small", "fixed_large", "learned")


def ddpm(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    variance: str = "fixed_small",
    **options: Unpack[GridOptions],
) -> StepTable:
    """x' ~ q(x' | x, x0): x' = a x0 + b x + sqrt(variance) noise (eq. 6-7), for the chain of the visited levels.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        variance: "fixed_small" is the posterior's own, "fixed_large" the forward step's beta; "learned" lets a
            network with 2C output channels interpolate between their logarithms (Nichol and Dhariwal 2021, eq. 15).
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if variance not in VARIANCES:
        raise ValueError(f"ddpm: variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
    grid = make_grid(schedule, prediction, steps, **options)
    rows = []
    for i, now, then in grid.steps():
        share = now.share_of_noise(then)
        a, b = then.alpha * share, now.alpha / then.alpha * (then.sigma / now.sigma) ** 2
        rows.append(grid.row(i, now, then, a=a, b=b, **_noise(variance, now, then, share)))
    return grid.table("ddpm", rows)


def _noise(variance: str, now: Level, then: Level, share: float) -> dict[str, float]:
    """The noise columns; the step to the clean end adds none."""
    if then.clean:
        return {}
    large, small = share * now.sigma**2, share * then.sigma**2
    if variance == "learned":
        return {"s": 1.0, "l_0": float(np.log(large * small)) / 2, "l_1": float(np.log(large / small)) / 2}
    return {"s": float(np.sqrt(large if variance == "fixed_large" else small))}
