"""Measured order of convergence on Gaussian data, whose probability flow is known exactly.

The grid is uniform in log-SNR from -4 to 5 and the state is compared there, before the step to the clean end. Solvers
that start with lower orders show those; with an exact start they show their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.ops import solver_step
from fastdiff.ops.row import Push
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, StepTable
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.from_log_snr(lambda t: 5 - 9 * t)
READ = ("eps", "x0", "v", "edm")
STARTS = torch.linspace(-2.5, 2.5, 7, dtype=torch.float64).reshape(-1, 1)


def network(prediction: str) -> MixtureNetwork:
    return MixtureNetwork(SCHEDULE, prediction, [0.3], [0.5])


def history_at(table: StepTable, net: MixtureNetwork, times: np.ndarray, first: int) -> Tensor:
    """The ring as exact earlier steps would have left it."""
    ring = STARTS.new_zeros((table.history, *STARTS.shape))
    for i in range(max(0, first - 3), first):
        alpha, sigma = float(SCHEDULE.alpha(times[i])), float(SCHEDULE.sigma(times[i]))
        state = net.flow(STARTS, times[0], times[i])
        x0 = net.denoise(state, alpha, sigma)
        ring[i % 3] = x0 if table["push_0"][i] == Push.X0 else (state - alpha * x0) / sigma
    return ring


def error(name: str, prediction: str, steps: int, exact_start: int, **options: Any) -> float:
    times = np.linspace(1.0, 0.0, steps + 1)
    table = SOLVERS[name](SCHEDULE, prediction, None, timesteps=times, clip=None, **options)
    net = network(prediction)
    x = net.flow(STARTS, 1.0, times[exact_start])
    history = (
        history_at(table, net, times, exact_start)
        if exact_start
        else STARTS.new_zeros((table.history, *x.shape))
    )
    rows, told = table.tensor(dtype=torch.float64), table.times(len(x), dtype=torch.float64)
    for k in range(exact_start, len(table) - 1):
        x = solver_step(rows, k, x, net(x, told[k]), history=history if table.history else None)
    return float((x - net.flow(STARTS, 1.0, 0.0)).abs().max())


def order(name: str, prediction: str, coarsest: int, exact_start: int = 0, **options: Any) -> float:
    counts = [coarsest, 2 * coarsest]
    errors = [error(name, prediction, n, exact_start, **options) for n in counts]
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize("prediction", READ)
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ddim", {}, 1),
        ("euler", {}, 1),
        ("heun", {}, 2),
        ("kdpm2", {}, 2),
        ("dpmpp_2s", {}, 2),
        ("dpmpp_2m", {}, 2),
        ("dpmpp_3m", {}, 2),
        ("ipndm", {"order": 2}, 2),
        ("lms", {"order": 1}, 1),
        ("lms", {"order": 2}, 2),
        ("deis", {"order": 2}, 2),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 2}, 3),
        ("unipc", {"order": 2, "variant": "bh1"}, 3),
        ("unipc", {"order": 3}, 3),
        ("flow_euler", {}, 1),
        ("tcd", {"gamma": 0.0}, 1),
        ("em", {"flow": 1.0}, 1),
        ("pndm", {}, 2),
        ("pndm", {"warmup": "runge_kutta"}, 2),
        ("dpmpp_sde", {"eta": 0.0}, 2),
        ("dpmpp_2m_sde", {"eta": 0.0}, 2),
        ("sa_solver", {"tau": 0.0}, 2),
        ("sa_solver", {"tau": 0.0, "order": 3, "corrector_order": 4}, 3),
    ],
)
def test_order_as_it_runs(name: str, options: dict[str, Any], expected: int, prediction: str) -> None:
    assert order(name, prediction, 80 if expected < 3 else 240, **options) == pytest.approx(
        expected, abs=0.15
    )


@pytest.mark.parametrize("prediction", READ)
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("dpmpp_2m", {}, 2),
        ("dpmpp_3m", {}, 2),
        ("dpmpp_3m", {"full_third_order": True}, 3),
        ("lms", {"order": 3}, 3),
        ("lms", {"order": 4}, 4),
        ("deis", {"order": 3}, 3),
        ("ipndm", {"order": 4}, 2),
    ],
)
def test_order_from_an_exact_start(
    name: str, options: dict[str, Any], expected: int, prediction: str
) -> None:
    coarsest = {2: 80, 3: 240, 4: 160}[expected]
    assert order(name, prediction, coarsest, exact_start=3, **options) == pytest.approx(expected, abs=0.15)
