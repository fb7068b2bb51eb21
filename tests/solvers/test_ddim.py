"""DDIM against the exact flow of Gaussian data, and its ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastdiff.prediction import PLAIN
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SPACINGS, ddim, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork

MEAN, STD = 0.3, 0.5
STARTS = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64).reshape(-1, 1)
CONTINUOUS = Schedule.from_log_snr(lambda t: 12 - 20 * t)


def drawn(network: MixtureNetwork, steps: Any, **options: Any) -> torch.Tensor:
    return sample(
        network, steps, shape=(1,), num=len(STARTS), x_init=STARTS, clip=None, dtype=torch.float64, **options
    )


def slope(counts: list[int], errors: list[float]) -> float:
    """Measured order of convergence."""
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize("schedule", [Schedule.linear(1000), Schedule.cosine(1000), CONTINUOUS], ids=repr)
@pytest.mark.parametrize("prediction", PLAIN)
def test_converges_to_the_flow_at_first_order(prediction: str, schedule: Schedule) -> None:
    network = MixtureNetwork(schedule, prediction, [MEAN], [STD])
    counts = [50, 100, 200]
    exact = network.flow(STARTS, schedule.t_max)
    errors = [float((drawn(network, n) - exact).abs().max()) for n in counts]
    assert slope(counts, errors) == pytest.approx(1.0, abs=0.15)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 50, 100])
def test_a_point_is_found_exactly(steps: int, spacing: str) -> None:
    network = MixtureNetwork(Schedule.cosine(100), "eps", [MEAN], [0.0])
    result = drawn(network, steps, spacing=spacing)
    torch.testing.assert_close(result, torch.full_like(result, MEAN), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("prediction", PLAIN)
def test_moments_of_the_table(prediction: str, steps: int, spacing: str, carried) -> None:
    """mean and spread of the state against eq. 12 of the paper, written for moments."""
    schedule = Schedule.linear(100)
    table = ddim(schedule, prediction, steps, spacing=spacing, clip=None)
    mean, spread = 0.0, 1.0
    moments = carried(table, schedule, prediction, MEAN, STD, (mean, spread**2))
    times = [*table["t"].astype(int).tolist(), None]
    for k, (t, t_next) in enumerate(zip(times, times[1:])):
        bar = schedule.alphas_cumprod[t]
        bar_next = 1.0 if t_next is None else schedule.alphas_cumprod[t_next]
        variance = bar * STD**2 + 1 - bar
        gain = bar**0.5 * STD**2 / variance
        x0_mean = MEAN + gain * (mean - bar**0.5 * MEAN)
        ratio = ((1 - bar_next) / (1 - bar)) ** 0.5
        mean = bar_next**0.5 * x0_mean + ratio * (mean - bar**0.5 * x0_mean)
        spread *= bar_next**0.5 * gain + ratio * (1 - bar**0.5 * gain)
        assert moments[k + 1] == pytest.approx((mean, spread**2), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("make", [ddim, ddpm])
@pytest.mark.parametrize("prediction", PLAIN)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_last_step_returns_x0(spacing: str, prediction: str, make) -> None:
    table = make(Schedule.sigmoid(40), prediction, 8, spacing=spacing)
    assert (table["b"][-1], table["a"][-1], table["s"][-1]) == (0.0, 1.0, 0.0)
    assert (table["i_y"][-1], table["i_s"][-1]) == (1.0, 0.0)


@pytest.mark.parametrize("steps", [1, 2, 25, 50])
@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("make", [ddim, ddpm])
def test_zero_terminal_snr(make, prediction: str, steps: int, carried) -> None:
    """From pure noise the first x0 is the data's mean, so one step returns exactly that."""
    schedule = Schedule.scaled_linear(50).rescale_zero_terminal_snr()
    table = make(schedule, prediction, steps, clip=None)
    mean, variance = carried(table, schedule, prediction, MEAN, STD, (0.0, 1.0))[-1]
    assert np.isfinite([mean, variance]).all()
    assert mean == pytest.approx(MEAN, abs=1e-12)
    if steps == 1:
        assert variance == pytest.approx(0.0, abs=1e-24)
    with pytest.raises(ValueError, match="t = 49, .*x0 or v where alpha is 0"):
        make(schedule, "eps", steps)
    assert len(make(schedule, "eps", None, timesteps=[48, 20])) == 2


def test_eta_one_is_ddpm_with_small_variance() -> None:
    schedule = Schedule.cosine(200)
    stochastic, ancestral = ddim(schedule, "v", 20, eta=1.0), ddpm(schedule, "v", 20)
    np.testing.assert_allclose(stochastic.rows, ancestral.rows, rtol=1e-10, atol=1e-13)


def test_eta_formula_of_the_paper() -> None:
    schedule = Schedule.linear(1000)
    table = ddim(schedule, "eps", 20, eta=0.4)
    bar = schedule.alphas_cumprod[table["t"].astype(int)]
    expected = 0.4 * np.sqrt((1 - bar[1:]) / (1 - bar[:-1]) * (1 - bar[:-1] / bar[1:]))
    np.testing.assert_allclose(table["s"][:-1], expected, rtol=1e-10)


def test_clip_limits_x0() -> None:
    network = MixtureNetwork(Schedule.cosine(100), "eps", [5.0], [1.0])
    options = {"shape": (1,), "num": 4, "dtype": torch.float64}
    assert float(sample(network, 10, clip=(-0.5, 0.25), **options).max()) == 0.25
    assert float(sample(network, 10, **options).max()) == 1.0
    assert float(sample(network, 10, clip=None, **options).min()) > 2


@pytest.mark.parametrize("eta", [-0.1, 1.1, np.nan])
def test_eta_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=r"ddim: eta must be in \[0, 1\]"):
        ddim(Schedule.linear(10), "eps", 5, eta=eta)


@pytest.mark.parametrize("clip", [(1, -1), (0, 0), (1,), (np.nan, 1)])
def test_clip_refused(clip: tuple) -> None:
    with pytest.raises(ValueError, match="clip must be None or"):
        ddim(Schedule.linear(10), "eps", 5, clip=clip)


def test_prediction_refused() -> None:
    with pytest.raises(ValueError, match="eps, x0, v, flow, score, edm, got 'epsilon'"):
        ddim(Schedule.linear(10), "epsilon", 5)


def test_clean_start_refused() -> None:
    with np.errstate(divide="ignore"):
        flow = Schedule.from_log_snr(lambda t: 2 * (np.log1p(-t) - np.log(t)), kind="flow")
        with pytest.raises(ValueError, match="sigma must be > 0 at the last timestep, got 0 at t = 0"):
            ddim(flow, "x0", 3, spacing="linspace")
        table = ddim(flow, "x0", 4)
    assert table["t"].tolist() == [1.0, 0.75, 0.5, 0.25]
    assert table.init_noise == 1.0
    np.testing.assert_allclose(table["b"], [0.75, 2 / 3, 0.5, 0.0], rtol=1e-12)
