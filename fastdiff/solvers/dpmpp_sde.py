"""Stochastic DPM-Solver++ on x0: two stages, and multistep (Lu et al. 2022, arXiv 2211.01095; k-diffusion)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastdiff.ops.row import Push
from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, Row, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, Columns, ancestral, by_x0, exponential_integrals

if TYPE_CHECKING:
    from typing_extensions import Unpack


VARIANTS = ("midpoint", "heun")


def dpmpp_sde(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 1.0,
    r: float = 0.5,
    **options: Unpack[GridOptions],
) -> StepTable:
    """x0 from a noisy intermediate level; both stages see one Brownian path in sigma / alpha, as in k-diffusion.

    The first stage pushes x and x0. What the second reads as state is a sum of those and of the first stage's noise,
    so the noise is recovered from it, and only the rest of the path is drawn. Steps to the clean end and from pure
    noise (alpha = 0) take one stage.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: Share of the noise that is drawn anew, 0 ... 1.
        r: Where the intermediate level lies, as a share of the step in log(alpha / sigma), in (0, 1).
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not (0 <= eta <= 1 and 0 < r < 1):
        raise ValueError(f"dpmpp_sde: eta must be in [0, 1] and r in (0, 1), got {eta} and {r}")
    grid = make_grid(schedule, prediction, steps, **options)
    rows: list[Row] = []
    for _, now, then in grid.steps():
        if then.clean or now.alpha == 0:
            rows.append(grid.row(len(rows), now, then, **ancestral(now, then, eta)))
            continue
        middle = grid.between(now.log_snr + r * (then.log_snr - now.log_snr))
        pushes = {"push_0": Push.X, "push_0_slot": 0, "push_1": Push.X0, "push_1_slot": 1}
        first = ancestral(now, middle, eta)
        rows.append(grid.row(len(rows), now, middle, **first, **pushes))
        rows.append(grid.row(len(rows), middle, then, **_second_stage(now, middle, then, eta, r)))
    return grid.table("dpmpp_sde", rows, history=2)


def _second_stage(now: Level, middle: Level, then: Level, eta: float, r: float) -> Columns:
    """x' = b x + (alpha' - b alpha) (x0's mixture) + s (rho noise_1 + sqrt(1 - rho^2) noise)."""
    first, whole = ancestral(now, middle, eta), ancestral(now, then, eta)
    rho = ((now.ratio - middle.ratio) / (now.ratio - then.ratio)) ** 0.5
    again = whole["s"] * rho / first["s"] if eta else 0.0
    share = 1 / (2 * r)
    return {
        "b": again,
        "a": whole["a"] * share,
        "h_0": whole["b"] - again * first["b"],
        "slot_0": 0,
        "h_1": whole["a"] * (1 - share) - again * first["a"],
        "slot_1": 1,
        "s": whole["s"] * (1 - rho**2) ** 0.5,
    }


def dpmpp_2m_sde(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    eta: float = 1.0,
    variant: str = "midpoint",
    **options: Unpack[GridOptions],
) -> StepTable:
    """Second order from two estimates of x0; the first step and the one to the clean end are first order.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        eta: Strength of the noise: 0 is `dpmpp_2m`, 1 the reverse SDE.
        variant: "midpoint", or "heun" for the exact integral of the line through both estimates.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if not 0 <= eta <= 1 or variant not in VARIANTS:
        raise ValueError(
            f"dpmpp_2m_sde: eta must be in [0, 1] and variant midpoint or heun, got {eta} and {variant!r}"
        )
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    for i, now, then in grid.steps():
        lams = [level.lam for level in grid.levels[max(0, i - 1) : i + 1][::-1] if level.alpha > 0]
        weights = _two_estimates(lams, then.lam, 1 + eta, variant)
        rows.append(grid.row(i, now, then, **by_x0(now, then, weights, i, eta)))
    return grid.table("dpmpp_2m_sde", rows, history=RING)


def _two_estimates(lams: list[float], stop: float, rate: float, variant: str) -> list[float]:
    """Weights of x0 at lams (newest first) for the step to `stop`."""
    if not lams or np.isinf(stop):
        return [1.0]
    phi = -float(np.expm1(rate * (lams[0] - stop)))
    if len(lams) == 1:
        return [phi]
    if variant == "heun":
        return list(exponential_integrals([rate * lam for lam in lams], rate * lams[0], rate * stop, 1))
    slope = 0.5 * phi * (stop - lams[0]) / (lams[0] - lams[1])
    return [phi + slope, -slope]
