"""Solvers that strain the row: UniPC and Heun with churn as tables, compared with their plain published formulas.

UniPC folds predictor and corrector into one row with three histories; Heun carries the churn noise of the next step in
the second stage of this one, and its first churn in a row without network.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Stream
from fastdiff.sampling.evaluator import Evaluator
from fastdiff.sampling.loop import Run, run
from fastdiff.sampling.noise import NoiseSource
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable, heun, make_grid, unipc
from fastdiff.solvers.closed_form import MixtureNetwork

MIXTURE = {"means": (-0.8, 0.1, 0.9), "stds": (0.1, 0.3, 0.05), "weights": (0.3, 0.5, 0.2)}
SEEDS = torch.arange(5)
SHAPE = (2, 3, 4)


def carried_out(table: StepTable, network: MixtureNetwork, x: Tensor) -> Tensor:
    return run(Run(table, Evaluator(network), NoiseSource("philox", SEEDS)), x)


def initial() -> Tensor:
    return rng.normal(SEEDS, SHAPE, dtype=torch.float64)


# --- UniPC (Zhao et al. 2023, arXiv 2302.04867), data prediction, B2(h), multistep --------------------------------


def orders(steps: int, order: int) -> list[int]:
    return [min(order, i + 1, steps - i) for i in range(steps)]


def unipc_directly(schedule: Schedule, network: MixtureNetwork, steps: int, order: int, x: Tensor) -> Tensor:
    """The published algorithm: state, model outputs and a corrector that runs before every predictor."""
    levels, corrected = make_grid(schedule, network.prediction, steps, clip=None).levels, x
    outputs: list[Tensor] = []

    def update(i: int, p: int, m_t: Tensor | None) -> Tensor:
        s, t = levels[i], levels[i + 1]
        h = (t.log_snr - s.log_snr) / 2
        base = t.sigma / s.sigma * corrected - t.alpha * np.expm1(-h) * outputs[i]
        if t.clean:
            return base
        ratios = [(levels[i - k].log_snr - s.log_snr) / 2 / h for k in range(1, p)]
        differences = [(outputs[i - k] - outputs[i]) / r for k, r in zip(range(1, p), ratios)]
        if m_t is not None:
            ratios, differences = [*ratios, 1.0], [*differences, m_t - outputs[i]]
        n = len(ratios)
        if n == 0:
            return base
        R = np.vander(ratios, n, increasing=True).T
        g, b = np.expm1(-h), []
        phi = g / -h - 1
        for k in range(1, n + 1):
            b.append(phi * np.prod(np.arange(1, k + 1)) / g)
            phi = phi / -h - 1 / np.prod(np.arange(1, k + 2))
        half = (m_t is None and p == 2) or (m_t is not None and p == 1)
        rho = [0.5] if half else np.linalg.solve(R, b)
        return base - t.alpha * g * sum(r * d for r, d in zip(rho, differences))

    for i in range(steps):
        m = network.denoise(x, levels[i].alpha, levels[i].sigma)
        if i > 0:
            corrected = update(i - 1, orders(steps, order)[i - 1], m)
        outputs.append(m)
        x = update(i, orders(steps, order)[i], None)
    return x


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize(("steps", "order"), [(1, 1), (2, 2), (7, 1), (9, 2), (12, 3)])
def test_unipc_as_rows(steps: int, order: int, prediction: str) -> None:
    schedule = Schedule.cosine(1000)
    network = MixtureNetwork(schedule, prediction, **MIXTURE)
    table = unipc(schedule, prediction, steps, order=order, clip=None)
    assert table.evaluations == len(table) == steps
    expected = unipc_directly(schedule, network, steps, order, initial())
    torch.testing.assert_close(carried_out(table, network, initial()), expected, rtol=0, atol=1e-10)


# --- Heun with churn (Karras et al. 2022, arXiv 2206.00364, algorithm 2) ------------------------------------------


def edm_sigmas(steps: int, low: float = 0.02, high: float = 20.0, rho: float = 7.0) -> np.ndarray:
    ramp = np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho
    return np.append(ramp, 0.0)


def churned(sigmas: np.ndarray, churn: float, span: tuple[float, float]) -> np.ndarray:
    steps = len(sigmas) - 1
    inside = (sigmas[:-1] >= span[0]) & (sigmas[:-1] <= span[1])
    return sigmas[:-1] * (1 + np.where(inside, min(churn / steps, 2**0.5 - 1), 0.0))


def heun_directly(
    network: MixtureNetwork,
    sigmas: np.ndarray,
    churn: float,
    span: tuple[float, float],
    s_noise: float,
    x: Tensor,
) -> Tensor:
    for k, (sigma, hat, then) in enumerate(zip(sigmas, churned(sigmas, churn, span), sigmas[1:])):
        noise = rng.normal(SEEDS, SHAPE, row=k, stream=Stream.CHURN, dtype=torch.float64)
        x_hat = x + (hat**2 - sigma**2) ** 0.5 * s_noise * noise
        d = (x_hat - network.denoise(x_hat, 1.0, hat)) / hat
        x = x_hat + (then - hat) * d
        if then > 0:
            d_next = (x - network.denoise(x, 1.0, then)) / then
            x = x_hat + (then - hat) * (d + d_next) / 2
    return x


@pytest.mark.parametrize(("churn", "s_noise"), [(0.0, 1.0), (5.0, 1.007), (80.0, 1.0)])
@pytest.mark.parametrize("steps", [1, 2, 11])
def test_heun_with_churn_as_rows(steps: int, churn: float, s_noise: float) -> None:
    schedule = Schedule.from_log_snr(lambda t: -2 * np.log(t), t_min=1e-3, t_max=40.0, kind="ve")
    network = MixtureNetwork(schedule, "x0", **MIXTURE)
    sigmas, span = edm_sigmas(steps), (0.05, 15.0)
    options = {"s_churn": churn, "s_tmin": span[0], "s_tmax": span[1], "s_noise": s_noise, "clip": None}
    table = heun(schedule, "x0", None, timesteps=sigmas[:-1], **options)
    assert table.evaluations == 2 * steps - 1
    assert len(table) == 2 * steps - 1 + (table["eval"][0] == 0)
    x = sigmas[0] * initial()
    expected = heun_directly(network, sigmas, churn, span, s_noise, x)
    got = carried_out(table, network, x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    if churn and steps > 2:
        still = heun_directly(network, sigmas, 0.0, span, s_noise, x)
        assert (got - still).abs().max() > 1e-3
