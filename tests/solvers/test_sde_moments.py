"""Moments of Gaussian data carried through the tables themselves, histories and noise included.

With the exact network of a Gaussian every row is affine, so the means and the covariance of (state, history) follow a
recursion that is computed here from the numbers of the rows alone. Samples must have those moments, and with many
steps those moments must be the data's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastdiff.ops.row import HISTORIES, PUSHES, Push
from fastdiff.prediction import input_scale, parts
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, StepTable
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.from_log_snr(lambda t: 9 - 16 * t)
MEAN, STD = 0.3, 0.5
NUM = 10_000
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {}),
    ("ddim", {"eta": 0.6}),
    ("euler_ancestral", {}),
    ("kdpm2_ancestral", {}),
    ("dpmpp_2s", {"eta": 1.0}),
    ("dpmpp_sde", {}),
    ("dpmpp_sde", {"eta": 0.5, "r": 0.3}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_2m_sde", {"eta": 0.4, "variant": "heun"}),
    ("sa_solver", {}),
    ("sa_solver", {"order": 3, "corrector_order": 4, "tau_span": (0.0, 1.0), "tau": 0.7}),
    ("vdm", {}),
    ("em", {}),
    ("em", {"flow": 0.5}),
    ("lcm", {}),
    ("tcd", {}),
    ("flow_euler", {"stochastic": True}),
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in CASES]

COLUMNS_READ = (
    *("u_x", "u_m", "p_x", "p_0", "p_m", "b", "a", "q_m", "h_0", "h_1", "h_2", "s", "c_in"),
    *("t", "eval", "slot_0", "slot_1", "slot_2", "push_0", "push_0_slot", "push_1", "push_1_slot"),
)


def exact_output(prediction: str, log_snr: float) -> tuple[float, float]:
    """(slope, intercept) of the exact network as a function of the state."""
    alpha, sigma = map(float, SCHEDULE.split(log_snr))
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    x0 = np.array([gain, MEAN - gain * alpha * MEAN])
    eps = (np.array([1.0, 0.0]) - alpha * x0) / sigma
    m_0, m_e = parts(prediction, alpha, sigma)
    slope, offset = m_0 * x0 + m_e * eps
    return float(slope), float(offset)


def carried(
    table: StepTable, prediction: str, start: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the state before the first row and after every row, from those it starts with."""
    size = 1 + table.history
    mean, cov = np.zeros(size), np.zeros((size, size))
    mean[0], cov[0, 0] = start
    moments = [(mean[0], cov[0, 0])]
    for k in range(len(table)):
        row = {name: float(table[name][k]) for name in COLUMNS_READ}
        log_snr = -8 * row["t"] if prediction == "edm" else float(SCHEDULE.log_snr(row["t"]))
        slope, offset = exact_output(prediction, log_snr) if row["eval"] else (0.0, 0.0)
        level = map(float, SCHEDULE.split(log_snr))
        assert row["c_in"] == pytest.approx(input_scale(prediction, *level), rel=1e-12)
        x0 = np.array([row["u_x"] + row["u_m"] * slope, row["u_m"] * offset])
        eps = row["p_x"] * np.array([1.0, 0.0]) + row["p_0"] * x0 + row["p_m"] * np.array([slope, offset])
        new = row["b"] * np.array([1.0, 0.0]) + row["a"] * x0 + row["q_m"] * np.array([slope, offset])
        matrix, shift = np.eye(size), np.zeros(size)
        matrix[0, 0], shift[0] = new
        for j in range(HISTORIES):
            matrix[0, 1 + int(row[f"slot_{j}"]) if size > 1 else 0] += row[f"h_{j}"]
        for j in range(PUSHES):
            if row[f"push_{j}"] != Push.NONE:
                value = {Push.X: np.array([1.0, 0.0]), Push.X0: x0, Push.EPS: eps}[
                    Push(int(row[f"push_{j}"]))
                ]
                target = 1 + int(row[f"push_{j}_slot"])
                matrix[target] = 0
                matrix[target, 0], shift[target] = value
        mean, cov = matrix @ mean + shift, matrix @ cov @ matrix.T
        cov[0, 0] += row["s"] ** 2
        moments.append((mean[0], cov[0, 0]))
    return np.array([m for m, _ in moments]), np.array([v for _, v in moments])


@pytest.mark.parametrize("prediction", ["v", "edm"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_samples_have_the_moments_of_the_table(name: str, options: dict[str, Any], prediction: str) -> None:
    """Within five standard errors of 10 000 samples, after every row."""
    table = SOLVERS[name](SCHEDULE, prediction, 6, clip=None, **options)
    mean, variance = carried(table, prediction)
    network = MixtureNetwork(SCHEDULE, prediction, [MEAN], [STD])
    states = sample(
        network, 6, solver=table, shape=(100,), num=NUM // 100, dtype=torch.float64, trajectory=True
    )
    got = states.reshape(len(table) + 1, NUM).numpy()
    assert np.all(np.abs(got.mean(1) - mean) <= 5 * np.sqrt(variance / NUM) + 1e-12)
    assert np.all(np.abs(got.var(1) - variance) <= 5 * variance * np.sqrt(2 / NUM) + 1e-12)


def marginal(t: float) -> tuple[float, float]:
    """(mean, variance) of the noised data."""
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    return alpha * MEAN, (alpha * STD) ** 2 + sigma**2


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ddpm", {}, 1),
        ("ddim", {"eta": 0.6}, 1),
        ("euler_ancestral", {}, 1),
        ("vdm", {}, 1),
        ("em", {}, 1),
        ("em", {"flow": 0.5}, 1),
        ("kdpm2_ancestral", {}, 2),
        ("dpmpp_2s", {"eta": 1.0}, 2),
        ("dpmpp_sde", {}, 2),
        ("dpmpp_2m_sde", {}, 2),
        ("dpmpp_2m_sde", {"eta": 0.4, "variant": "heun"}, 2),
        ("sa_solver", {}, 2),
        ("sa_solver", {"order": 3, "corrector_order": 4, "tau_span": (0.0, 1.0), "tau": 0.7}, 2),
    ],
)
def test_weak_order(name: str, options: dict[str, Any], expected: int) -> None:
    """Mean and variance approach the marginal of the data at this order; exact start, before the step to clean data.

    (lcm and tcd draw noise anew from an estimate that is a mean, unless the network was distilled: no order.)
    """
    errors = []
    for steps in (150, 300):
        times = np.linspace(0.9, 0.1, steps + 1)
        table = SOLVERS[name](SCHEDULE, "v", None, timesteps=times, clip=None, **options)
        mean, variance = carried(table, "v", marginal(0.9))
        wanted = marginal(0.1)
        errors.append(abs(mean[-2] - wanted[0]) + abs(variance[-2] - wanted[1]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)
