"""The exact networks against numerical integration over the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff.schedule import Schedule
from fastdiff.solvers.closed_form import MixtureNetwork

SCHEDULE = Schedule.cosine(100)


@pytest.mark.parametrize("t", [3, 50, 99])
def test_denoise_is_the_posterior_mean(t: int) -> None:
    means, stds, weights = (-0.8, 0.5), (0.2, 0.4), (0.25, 0.75)
    network = MixtureNetwork(SCHEDULE, "x0", means, stds, weights)
    alpha, sigma = float(SCHEDULE.alpha(t)), float(SCHEDULE.sigma(t))
    data = np.linspace(-4, 4, 40001)
    density = sum(w / s * np.exp(-0.5 * ((data - m) / s) ** 2) for m, s, w in zip(means, stds, weights))
    for x in (-1.0, 0.1, 1.3):
        posterior = density * np.exp(-0.5 * ((x - alpha * data) / sigma) ** 2)
        expected = (posterior * data).sum() / posterior.sum()
        got = network(torch.full((1, 1), x, dtype=torch.float64), torch.tensor([t]))
        assert float(got) == pytest.approx(expected, abs=1e-9)


def test_flow_moves_quantiles() -> None:
    network = MixtureNetwork(SCHEDULE, "eps", [0.3], [0.5])
    x = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    there = network.flow(x, 99, 40)
    torch.testing.assert_close(network.flow(there, 40, 99), x)
    alpha, sigma = float(SCHEDULE.alpha(99)), float(SCHEDULE.sigma(99))
    z = (x - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2) ** 0.5
    torch.testing.assert_close(network.flow(x, 99), 0.3 + 0.5 * z)
    with pytest.raises(ValueError, match="flow must be asked of one component"):
        MixtureNetwork(SCHEDULE, "eps", [0.0, 1.0], [1.0, 1.0]).flow(x, 99)


@pytest.mark.parametrize(
    "options", [{"means": []}, {"stds": (-1.0,)}, {"weights": (0.0,)}, {"means": (1.0, 2.0)}]
)
def test_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="MixtureNetwork"):
        MixtureNetwork(SCHEDULE, "eps", **options)
