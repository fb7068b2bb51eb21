"""DDPM against the closed-form moments of its own chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.prediction import PLAIN
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SPACINGS, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork

MEAN, STD = 0.3, 0.5
SCHEDULE = Schedule.linear(100, 1e-3, 0.2)


def chain(
    times: list[int], variance: str, mean: float, std: float, schedule: Schedule
) -> list[tuple[float, float]]:
    """(mean, variance) after each step by eq. 6-7 of Ho et al. for the betas of the visited levels."""
    bars = [schedule.alphas_cumprod[t] for t in times] + [1.0]
    moments = [(0.0, 1.0)]
    for k, (bar, bar_next) in enumerate(zip(bars, bars[1:])):
        beta = 1 - bar / bar_next
        c_x0 = bar_next**0.5 * beta / (1 - bar)
        c_x = (1 - beta) ** 0.5 * (1 - bar_next) / (1 - bar)
        added = {"fixed_large": beta, "fixed_small": beta * (1 - bar_next) / (1 - bar)}[variance]
        gain = bar**0.5 * std**2 / (bar * std**2 + 1 - bar)
        before, spread = moments[-1]
        x0 = mean + gain * (before - bar**0.5 * mean)
        last = k == len(times) - 1
        slope = c_x0 * gain + c_x
        moments.append((c_x0 * x0 + c_x * before, slope**2 * spread + (0.0 if last else added)))
    return moments


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 37, 100])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", PLAIN)
def test_moments_of_the_table(prediction: str, spacing: str, steps: int, variance: str, carried) -> None:
    table = ddpm(SCHEDULE, prediction, steps, spacing=spacing, variance=variance, clip=None)
    got = carried(table, SCHEDULE, prediction, MEAN, STD, (0.0, 1.0))
    expected = chain(table["t"].astype(int).tolist(), variance, MEAN, STD, SCHEDULE)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "spacing"), [*((n, name) for n in (1, 2, 10) for name in SPACINGS), (100, "trailing")]
)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_sampled_moments_equal_the_chain(variance: str, steps: int, spacing: str) -> None:
    """20 000 one-pixel samples, every state of the chain; 5 standard errors."""
    num = 20_000
    network = MixtureNetwork(SCHEDULE, "v", [MEAN], [STD])
    options = {"spacing": spacing, "variance": variance, "clip": None, "dtype": torch.float64}
    states = sample(network, steps, shape=(1,), num=num, solver="ddpm", trajectory=True, **options)
    times = ddpm(SCHEDULE, "v", steps, spacing=spacing)["t"].astype(int).tolist()
    expected = chain(times, variance, MEAN, STD, SCHEDULE)
    assert states.shape == (steps + 1, num, 1)
    for state, (mean, spread) in zip(states, expected):
        assert float(state.mean()) == pytest.approx(mean, abs=5 * (spread / num) ** 0.5 + 1e-12)
        assert float(state.var()) == pytest.approx(spread, abs=5 * spread * (2 / num) ** 0.5 + 1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 4, 100])
def test_exact_marginals_where_they_are_exact(steps: int, spacing: str, carried) -> None:
    """A point with the small variance and unit variance with the large one follow the forward marginals."""
    small = ddpm(SCHEDULE, "eps", steps, spacing=spacing, clip=None)
    first = SCHEDULE.alphas_cumprod[int(small["t"][0])]
    point = carried(small, SCHEDULE, "eps", 0.4, 0.0, (first**0.5 * 0.4, 1 - first))
    levels = np.append(SCHEDULE.alphas_cumprod[small["t"].astype(int)], 1.0)
    np.testing.assert_allclose([m for m, _ in point], 0.4 * levels**0.5, rtol=1e-9)
    np.testing.assert_allclose([v for _, v in point], 1 - levels, rtol=1e-9, atol=1e-15)
    large = ddpm(SCHEDULE, "x0", steps, spacing=spacing, clip=None, variance="fixed_large")
    unit = carried(large, SCHEDULE, "x0", 0.0, 1.0, (0.0, 1.0))
    np.testing.assert_allclose([v for _, v in unit[:-1]], 1.0, rtol=1e-12)


class VarianceNetwork:
    """The exact network with a second half of channels: the fraction v between small (-1) and large (1) variance."""

    def __init__(self, fraction: float) -> None:
        self.exact, self.fraction = MixtureNetwork(SCHEDULE, "eps", [MEAN], [STD]), fraction
        self.schedule, self.prediction = SCHEDULE, "eps"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat((self.exact(x, t), torch.full_like(x, self.fraction)), dim=1)


@pytest.mark.parametrize(("fraction", "variance"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_learned_variance_reaches_both_fixed_ones(fraction: float, variance: str) -> None:
    options = {"shape": (2, 3, 3), "num": 4, "solver": "ddpm", "dtype": torch.float64, "clip": None}
    learned = sample(VarianceNetwork(fraction), 10, variance="learned", **options)
    fixed = sample(VarianceNetwork(0.0), 10, variance=variance, **options)
    torch.testing.assert_close(learned, fixed, rtol=0, atol=1e-12)
    between = sample(VarianceNetwork(0.3), 10, variance="learned", **options)
    assert (between - fixed).abs().max() > 1e-3


def test_learned_variance_interpolates_logarithms() -> None:
    table = ddpm(SCHEDULE, "eps", 10, variance="learned")
    small, large = ddpm(SCHEDULE, "eps", 10)["s"], ddpm(SCHEDULE, "eps", 10, variance="fixed_large")["s"]
    for v in (-1.0, 0.2, 1.0):
        got = table["s"] * np.exp((table["l_0"] + table["l_1"] * v) / 2)
        fraction = (v + 1) / 2
        np.testing.assert_allclose(got[:-1], (large**fraction * small ** (1 - fraction))[:-1], rtol=1e-12)
    assert table["s"][-1] == 0


def test_learned_variance_needs_a_second_half() -> None:
    network = MixtureNetwork(SCHEDULE, "eps", [MEAN], [STD])
    with pytest.raises(ValueError, match="v must be given"):
        sample(network, 5, shape=(1, 2, 2), num=2, solver="ddpm", variance="learned")


def test_variance_refused() -> None:
    with pytest.raises(ValueError, match="fixed_small, fixed_large, learned, got 'large'"):
        ddpm(SCHEDULE, "eps", 5, variance="large")
