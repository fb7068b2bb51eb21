"""Time steps chosen by dynamic programming from one batch of reference trajectories, without training.

Chen et al. 2024 (On the trajectory regularity of ODE-based diffusion sampling, GITS, arXiv 2405.11326): on a fine grid
of reference states, the cost of going from one level straight to another is the error that one Euler step makes there.
The cheapest path of n edges from the first level to the clean end visits the n times. Steps found so serve every
solver of the probability flow, since what they spread evenly is the curvature of the path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastdiff.schedule import CLEAN, Schedule

Floats = NDArray[np.float64]


def optimize_steps(
    schedule: Schedule,
    times: Sequence[float],
    states: NDArray[np.floating],
    steps: int,
    *,
    power: float = 1.0,
) -> list[float]:
    """The `steps` times, out of a reference grid, between which straight lines follow the reference best.

    Args:
        schedule: Whose times.
        times: (N,) strictly falling times of the reference grid; alpha > 0 at each.
        states: (N + 1, B, ...) reference states at the times and at the clean end, as
            `sample(..., solver="ddim", trajectory=True)` returns them.
        steps: 1 ... N.
        power: Of the error in the cost: larger avoids single bad steps. 1 as published.

    Returns:
        Strictly falling list of `steps` times, the first of `times` among them.

    Raises:
        ValueError: for arguments that do not fit.
    """
    grid = np.asarray(times, dtype=np.float64)
    if len(states) != len(grid) + 1 or len(grid) < 1:
        raise ValueError(
            f"optimize_steps: states must be {len(grid) + 1} (times and the end), got {len(states)}"
        )
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= len(grid):
        raise ValueError(f"optimize_steps: steps must be in 1 ... {len(grid)} (the reference), got {steps!r}")
    path = cheapest_path(euler_errors(schedule, grid, states) ** power, int(steps))
    return [float(grid[k]) for k in path[:-1]]


def euler_errors(schedule: Schedule, times: Floats, states: NDArray[np.floating]) -> Floats:
    """(N + 1, N + 1) error of one Euler step from level i to level j > i, inf elsewhere.

    Root mean square over the batch, in units where alpha^2 + sigma^2 = 1, so that levels are comparable.
    """
    levels = np.append(times, CLEAN)
    alpha, sigma = schedule.alpha(levels), schedule.sigma(levels)
    if np.any(alpha == 0):
        raise ValueError("optimize_steps: times must have alpha > 0, got pure noise")
    ratio = sigma / alpha
    y = np.asarray(states, dtype=np.float64).reshape(len(levels), -1) / alpha[:, None]
    slopes = np.diff(y, axis=0) / np.diff(ratio)[:, None]
    errors = np.full((len(levels), len(levels)), np.inf)
    for i, slope in enumerate(slopes):
        reached = y[i] + (ratio[i + 1 :, None] - ratio[i]) * slope
        distance = np.sqrt(np.mean((reached - y[i + 1 :]) ** 2, axis=1))
        errors[i, i + 1 :] = distance / np.sqrt(1 + ratio[i + 1 :] ** 2)
    return errors


def cheapest_path(costs: Floats, edges: int) -> list[int]:
    """The path of exactly `edges` edges from the first node to the last with the least sum of costs (i, j), i < j."""
    nodes = len(costs)
    best = np.full(nodes, np.inf)
    best[0] = 0.0
    came_from = np.zeros((edges, nodes), dtype=np.int64)
    for edge in range(edges):
        total = best[:, None] + costs
        came_from[edge] = total.argmin(axis=0)
        best = total.min(axis=0)
    if not np.isfinite(best[-1]):
        raise ValueError(f"optimize_steps: a path of {edges} edges must exist, got {nodes} levels")
    path = [nodes - 1]
    for edge in range(edges - 1, -1, -1):
        path.append(int(came_from[edge, path[-1]]))
    return path[::-1]
