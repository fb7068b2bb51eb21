"""Gaussian data make every row affine, so a table can be carried out on means and variances instead of samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastdiff.prediction import parts
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable

Moments = list[tuple[float, float]]
MEAN, STD = 0.3, 0.5


def exact_output(prediction: str, alpha: float, sigma: float, mean: float, std: float) -> tuple[float, float]:
    """(slope, intercept) of the exact network m(x) for pixels ~ N(mean, std^2)."""
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    x0 = (gain, mean - gain * alpha * mean)
    eps = ((1 - alpha * x0[0]) / sigma, -alpha * x0[1] / sigma)
    m_0, m_e = parts(prediction, alpha, sigma)
    return m_0 * x0[0] + m_e * eps[0], m_0 * x0[1] + m_e * eps[1]


def carry_moments(
    table: StepTable, schedule: Schedule, prediction: str, mean: float, std: float, start: tuple[float, float]
) -> Moments:
    """(mean, variance) of the state after each row, from the table's own numbers, without clamping."""
    moments = [start]
    for k in range(len(table)):
        row = {name: float(table[name][k]) for name in ("t", "u_x", "u_m", "b", "a", "s")}
        slope, offset = exact_output(
            prediction, float(schedule.alpha(row["t"])), float(schedule.sigma(row["t"])), mean, std
        )
        gain = row["b"] + row["a"] * (row["u_x"] + row["u_m"] * slope)
        shift = row["a"] * row["u_m"] * offset
        before = moments[-1]
        moments.append((gain * before[0] + shift, gain**2 * before[1] + row["s"] ** 2))
    return moments


@pytest.fixture
def carried() -> Callable[..., Moments]:
    return carry_moments
