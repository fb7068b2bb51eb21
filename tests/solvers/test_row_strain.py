"""Solvers that strain the row: UniPC and Heun with churn, written as rows and compared with their plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.ops.row import Push, make_row
from fastdiff.rng import Stream
from fastdiff.sampling.evaluator import Evaluator
from fastdiff.sampling.loop import Run, run
from fastdiff.sampling.noise import NoiseSource
from fastdiff.schedule import Schedule
from fastdiff.solvers import StepTable, make_grid
from fastdiff.solvers.closed_form import MixtureNetwork

MIXTURE = {"means": (-0.8, 0.1, 0.9), "stds": (0.1, 0.3, 0.05), "weights": (0.3, 0.5, 0.2)}
SEEDS = torch.arange(5)
SHAPE = (2, 3, 4)


def carried_out(table: StepTable, network: MixtureNetwork, x: Tensor) -> Tensor:
    return run(Run(table, Evaluator(network), NoiseSource("philox", SEEDS)), x)


def initial() -> Tensor:
    return rng.normal(SEEDS, SHAPE, dtype=torch.float64)


# --- UniPC (Zhao et al. 2023, arXiv 2302.04867), data prediction, B2(h), multistep --------------------------------


def unipc_weights(lams: list[float], order: int, corrector: bool) -> np.ndarray:
    """Weights on [m_s, m_older ..., m_t] of UniP (or UniC) from lams[-2] to lams[-1]; lams = half log-SNR.

    As x_t = (sigma_t / sigma_s) x_s + alpha_t * sum(weights * m); the last weight is 0 for the predictor.
    """
    h = lams[-1] - lams[-2]
    if np.isinf(h):
        return np.array([1.0] + [0.0] * order)
    ratios = [(lams[-2 - k] - lams[-2]) / h for k in range(1, order)] + [1.0]
    count = order if corrector else order - 1
    phi, factorial, matrix, vector = -np.expm1(-h), 1.0, [], []
    base, term = phi, np.expm1(-h) / -h - 1
    for power in range(count):
        factorial *= power + 1
        matrix.append([r**power for r in ratios[:count]])
        vector.append(term * factorial / np.expm1(-h))
        term = term / -h - 1 / (factorial * (power + 2))
    if count == 1:
        rho = np.array([0.5])
    else:
        rho = np.linalg.solve(np.array(matrix), np.array(vector)) if count else np.zeros(0)
    used = ratios[:count]
    weights = np.zeros(order + 1)
    weights[0] = base - sum(phi * p / r for p, r in zip(rho, used))
    for k, (p, r) in enumerate(zip(rho, used)):
        weights[order if corrector and k == count - 1 else k + 1] += phi * p / r
    return weights


def orders(steps: int, order: int) -> list[int]:
    return [min(order, i + 1, steps - i) for i in range(steps)]


def unipc_table(schedule: Schedule, prediction: str, steps: int, order: int) -> StepTable:
    grid = make_grid(schedule, prediction, steps, clip=None)
    lams = [level.log_snr / 2 for level in grid.levels]
    rows, previous = [], np.zeros(0)
    for i, now, then in grid.steps():
        p = orders(steps, order)[i]
        ahead = then.alpha * unipc_weights(lams[: i + 2][-(p + 1) :], p, corrector=False)
        b = then.sigma / now.sigma
        a, older = ahead[0], np.zeros(3)
        older[: p - 1] = ahead[1:-1]
        if i > 0:
            q = orders(steps, order)[i - 1]
            fix = now.alpha * unipc_weights(lams[: i + 1][-(q + 1) :], q, corrector=True) - previous
            a, older[:q] = a + b * fix[-1], older[:q] + b * fix[:-1]
        previous = ahead
        slots = {f"slot_{k}": (i - 1 - k) % 3 for k in range(3)}
        reads = {f"h_{k}": older[k] for k in range(3)}
        rows.append(grid.row(i, now, then, b=b, a=a, **slots, **reads, push_0=Push.X0, push_0_slot=i % 3))
    return grid.table("unipc", rows, history=3)


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
    table = unipc_table(schedule, prediction, steps, order)
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


def heun_table(sigmas: np.ndarray, churn: float, span: tuple[float, float], s_noise: float) -> StepTable:
    """Churn noise of step k + 1 rides in the second stage of step k; the first needs a row without network."""
    steps, hats = len(sigmas) - 1, churned(sigmas, churn, span)
    extra = s_noise * np.sqrt(np.maximum(hats**2 - sigmas[:-1] ** 2, 0.0))
    noise = [{"s": extra[k], "stream": Stream.CHURN, "noise_row": k} for k in range(steps)]
    rows = [make_row(b=1.0, **noise[0])]
    for k, (hat, then) in enumerate(zip(hats, sigmas[1:])):
        read = {"eval": 1, "u_m": 1.0}
        eps = {"p_x": 1 / hat, "p_0": -1 / hat}
        push = {"push_0": Push.X, "push_0_slot": 0, "push_1": Push.EPS, "push_1_slot": 1}
        rows.append(make_row(**read, **eps, **push, t=hat, b=then / hat, a=1 - then / hat))
        if then > 0:
            half = (then - hat) / 2
            slope = {"b": half / then, "a": -half / then, "h_0": 1.0, "slot_0": 0, "h_1": half, "slot_1": 1}
            rows.append(make_row(**read, **slope, t=then, **noise[k + 1]))
    return StepTable(np.stack(rows), "heun", history=2, discrete_time=False, init_noise=sigmas[0])


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
    table = heun_table(sigmas, churn, span, s_noise)
    assert table.evaluations == 2 * steps - 1 and len(table) == 2 * steps
    x = sigmas[0] * initial()
    expected = heun_directly(network, sigmas, churn, span, s_noise, x)
    got = carried_out(table, network, x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    if churn and steps > 2:
        still = heun_directly(network, sigmas, 0.0, span, s_noise, x)
        assert (got - still).abs().max() > 1e-3
