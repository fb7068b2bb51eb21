"""SA-Solver: stochastic Adams steps on x0, predictor and corrector (Xue et al. 2023, arXiv 2309.05019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdiff.schedule import Schedule
from fastdiff.solvers.grid import GridOptions, Level, make_grid
from fastdiff.solvers.table import StepTable
from fastdiff.solvers.updates import RING, by_x0, exponential_integrals

if TYPE_CHECKING:
    from typing_extensions import Unpack


Floats = NDArray[np.float64]
USED = 4  # this row's estimate and a ring of three


def sa_solver(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    order: int = 2,
    corrector_order: int = 2,
    tau: float = 1.0,
    tau_span: tuple[float, float] = (0.2, 0.8),
    **options: Unpack[GridOptions],
) -> StepTable:
    """Predict from the last `order` estimates of x0, correct with the one of the state reached; both see one noise.

    They share everything but the weights of the estimates, so the corrected state is the predicted one plus a sum
    over estimates: one row does both. Starts and ends with lower orders; the step to the clean end returns x0.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns.
        steps: Number of steps.
        order: Of the predictor, 1 ... 3.
        corrector_order: 1 ... 4; 0 is no corrector.
        tau: Strength of the noise, >= 0: 0 is the probability flow, 1 the reverse SDE.
        tau_span: Shares of the time range between which there is noise (the published setting).
        **options: spacing, timesteps and clip, see `fastdiff.solvers.grid.make_grid`.

    Raises:
        ValueError: for an argument out of range.
    """
    if order not in (1, 2, 3) or corrector_order not in (0, 1, 2, 3, 4) or not tau >= 0:
        raise ValueError(
            "sa_solver: order must be 1, 2 or 3, corrector_order 0 ... 4 and tau >= 0, got "
            f"{order}, {corrector_order} and {tau}"
        )
    grid, rows = make_grid(schedule, prediction, steps, **options), []
    last, last_decay = np.zeros(USED), 0.0
    for i, now, then in grid.steps():
        lams = [level.lam for level in grid.levels[: i + 1][::-1] if level.alpha > 0]
        decay = tau**2 if tau_span[0] <= _share(schedule, now.t) <= tau_span[1] else 0.0
        ahead = _predictor(lams[: min(order, len(grid) - i)], then.lam, decay)
        weights = ahead
        if corrector_order and i > 0 and grid.levels[i - 1].alpha > 0:
            used = min(corrector_order, len(grid) - i + 2, len(lams))
            correction = _corrector(lams, used, last_decay) - np.concatenate(([0.0], last[:-1]))
            weights = ahead + _carried(now, then, decay) * correction
        last, last_decay = ahead, decay
        rows.append(grid.row(i, now, then, **by_x0(now, then, list(weights), i, decay)))
    return grid.table("sa_solver", rows, history=RING)


def _share(schedule: Schedule, t: float) -> float:
    """Where a time lies: t / T of a discrete schedule, 0 ... 1 over the range of a continuous one."""
    return t / schedule.T if schedule.discrete else (t - schedule.t_min) / (schedule.t_max - schedule.t_min)


def _carried(now: Level, then: Level, decay: float) -> float:
    """How much a change of x / alpha at `now` changes it at `then`."""
    kept = float(np.exp(-decay * (then.lam - now.lam))) if decay else 1.0
    return 0.0 if then.clean else then.sigma / now.sigma * kept * now.alpha / then.alpha


def _predictor(lams: list[float], stop: float, decay: float) -> Floats:
    """Weights of [x0 at lams (newest first), ...], padded."""
    if not lams or np.isinf(stop):
        return _padded([1.0])
    h, rate = stop - lams[0], 1 + decay
    if len(lams) != 2:
        return _padded(exponential_integrals([rate * lam for lam in lams], rate * lams[0], rate * stop, 1))
    slope = rate * h**2 / 2 / (lams[0] - lams[1])  # the paper's order 2 takes the slope of the ODE's limit
    return _padded([-float(np.expm1(-rate * h)) + slope, -slope])


def _corrector(lams: list[float], order: int, decay: float) -> Floats:
    """Weights of x0 at the same levels for the step that has led from lams[1] to lams[0]."""
    h, rate = lams[0] - lams[1], 1 + decay
    if order != 2:
        nodes = [rate * lam for lam in lams[:order]]
        return _padded(exponential_integrals(nodes, rate * lams[1], rate * lams[0], 1))
    return _padded([rate * h / 2, -float(np.expm1(-rate * h)) - rate * h / 2])


def _padded(weights: Sequence[float] | Floats) -> Floats:
    return np.concatenate((weights, np.zeros(USED)))[:USED]
