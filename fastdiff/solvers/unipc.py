"""UniPC: a multistep predictor with a corrector that costs no evaluation (Zhao et al. 2023, arXiv 2302.04867)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_x0, exponential_moments

if TYPE_CHECKING:
    from typing_extensions import Unpack


def unipc(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    order: int = 2,
    variant: str = "bh2",
    **options: Unpack[GridOptions],
) -> StepTable:
    """Predict from the last `order` estimates of x0; correct the state in the row that estimates its own.

    Predictor and corrector share their linear part, so the corrected state is the predicted one plus a sum over
    estimates: one row does both. Starts and ends with lower orders; the step to the clean end returns x0.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        order: 1 ... 3.
        variant: "bh2" or "bh1", the function B(h) of the paper.
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if order not in (1, 2, 3) or variant not in ("bh1", "bh2"):
        raise ValueError(
            f"unipc: order must be 1, 2 or 3 and variant bh1 or bh2, got {order} and {variant!r}"
        )
    grid, rows, last = make_grid(schedule, prediction, steps, **options), [], np.zeros(0)
    for i, now, then in grid.steps():
        lams = [level.lam for level in grid.levels[: i + 2][::-1] if level.alpha > 0]
        ahead = uni_weights(lams[: 1 + _order(i, len(grid), order)], False, variant)
        weights = np.concatenate((ahead[1:], np.zeros(4)))[:4]
        if i > 0 and grid.levels[i - 1].alpha > 0:
            correction = uni_weights(lams[1 : 1 + last.size], True, variant) - last
            weights += (
                then.sigma
                / now.sigma
                * now.alpha
                / then.alpha
                * np.concatenate((correction, np.zeros(4)))[:4]
            )
        last = ahead
        rows.append(grid.row(i, now, then, **by_x0(now, then, list(weights), i)))
    return grid.table("unipc", rows, history=RING)


def _order(index: int, steps: int, order: int) -> int:
    return min(order, index + 1, steps - index)


def uni_weights(lams: list[float], corrector: bool, variant: str) -> NDArray[np.float64]:
    """Weights on [x0_t, x0_s, x0 before ...] of x_t = (sigma_t / sigma_s) x_s + alpha_t sum(weights x0).

    Args:
        lams: log(alpha / sigma) of t, s and the levels before s; as many as the order, plus one.
        corrector: Use x0_t too.
        variant: "bh1" or "bh2".
    """
    weights = np.zeros(max(2, len(lams)))
    if len(lams) < 2 or np.isinf(lams[0]):
        weights[1] = 1.0
        return weights
    h = lams[0] - lams[1]
    ratios = [*((lam - lams[1]) / h for lam in lams[2:]), *([1.0] if corrector else [])]
    scale = h if variant == "bh1" else -float(np.expm1(-h))
    count = len(ratios)
    rho = np.full(count, 0.5)
    if count > 1:
        moments = exponential_moments(h, count + 1)[1:]
        rho = np.linalg.solve(np.vander(ratios, increasing=True).T, moments / scale)
    parts = scale * rho / np.array(ratios)
    weights[1] = -float(np.expm1(-h)) - parts.sum()
    weights[2 : 2 + count - corrector] = parts[: count - corrector]
    weights[0] = parts[-1] if corrector else 0.0
    return weights
