"""Schedules: golden numbers, ends, interpolation, files, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdiff.schedule import DISCRETE, Schedule

GOLDEN_AT = (0, 1, 249, 499, 749, 999)
GOLDEN = {
    "linear": (0.9999, 0.9997801, 0.5240854, 0.07858724, 3.350550e-3, 4.035830e-5),
    "cosine": (0.9999587, 0.9999126, 0.8470122, 0.4938436, 0.1442721, 2.428767e-9),
    "sigmoid": (0.9996997, 0.9993978, 0.8508535, 0.5, 0.1491465, 3.002792e-7),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name: str) -> None:
    schedule = Schedule.named(name, T=1000)
    np.testing.assert_allclose(schedule.alphas_cumprod[list(GOLDEN_AT)], GOLDEN[name], rtol=5e-7)
    np.testing.assert_allclose(schedule.alpha(GOLDEN_AT) ** 2, GOLDEN[name], rtol=5e-7)


def test_operator_schedule_has_one_more_value() -> None:
    schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1001))
    np.testing.assert_allclose(schedule.alphas_cumprod[1000], 3.995202e-5, rtol=1e-6)


def test_toy_ou_bridge_numbers() -> None:
    beta = -np.expm1(-2 * 2 * 0.015)
    schedule = Schedule.from_betas(np.full(100, beta))
    np.testing.assert_allclose(beta, 0.0582355, rtol=1e-6)
    np.testing.assert_allclose(schedule.alphas_cumprod[-1], 2.478752e-3, rtol=1e-6)


def test_vdm_gamma_numbers() -> None:
    schedule = Schedule.from_log_snr(lambda t: 13.3 - 18.3 * t)
    np.testing.assert_allclose(schedule.sigma(0.0) ** 2, 1.67449e-6, rtol=1e-5)
    np.testing.assert_allclose(schedule.alpha(1.0) ** 2, 6.69285e-3, rtol=1e-5)


@pytest.mark.parametrize("name", DISCRETE)
def test_variance_preserving_and_clean_end(name: str) -> None:
    schedule = Schedule.named(name, T=200)
    t = np.arange(-1, 200)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1.0, rtol=1e-15)
    assert schedule.alpha(-1) == 1.0 and schedule.sigma(-1) == 0.0 and schedule.log_snr(-1) == np.inf
    assert np.all(np.diff(schedule.log_snr(t[1:])) < 0)
    np.testing.assert_allclose(schedule.alpha(t[1:]), np.sqrt(schedule.alphas_cumprod), rtol=1e-14)
    np.testing.assert_allclose(schedule.sigma(t[1:]), np.sqrt(1 - schedule.alphas_cumprod), rtol=1e-11)
    assert schedule.alpha([[0, 1], [2, -1]]).shape == (2, 2)


def test_log_snr_is_interpolated_between_integers() -> None:
    schedule = Schedule.cosine(50)
    low, high = schedule.log_snr([10, 11])
    np.testing.assert_allclose(schedule.log_snr(10.25), 0.75 * low + 0.25 * high)


def test_zero_terminal_snr() -> None:
    plain = Schedule.scaled_linear(1000)
    schedule = plain.rescale_zero_terminal_snr()
    assert schedule.alpha(999) == 0.0 and schedule.sigma(999) == 1.0 and schedule.log_snr(999) == -np.inf
    np.testing.assert_allclose(schedule.alpha(0), plain.alpha(0), rtol=1e-15)
    root, first, last = plain.alpha(500), plain.alpha(0), plain.alpha(999)
    np.testing.assert_allclose(schedule.alpha(500), (root - last) * first / (first - last), rtol=1e-12)
    with pytest.raises(ValueError, match="integer next to a step with alpha = 0"):
        schedule.alpha(998.5)


@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
def test_kinds(kind: str) -> None:
    schedule = Schedule.from_log_snr(lambda t: 4 - 8 * t, kind=kind)
    t = np.linspace(0, 1, 7)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    np.testing.assert_allclose(2 * np.log(alpha / sigma), 4 - 8 * t, atol=1e-12)
    whole = {"vp": alpha**2 + sigma**2, "ve": alpha, "flow": alpha + sigma}[kind]
    np.testing.assert_allclose(whole, 1.0)
    assert schedule.alpha(-1) == 1 and schedule.sigma(-1) == 0


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule.cosine(50),
        Schedule.scaled_linear(50).rescale_zero_terminal_snr(),
        Schedule.from_log_snr(lambda t: 9 - 18 * t),
    ],
    ids=repr,
)
def test_time_at_inverts_log_snr(schedule: Schedule) -> None:
    times = np.linspace(schedule.t_min, schedule.t_max - 2 * (schedule.t_max > 1), 23)
    np.testing.assert_allclose(schedule.time_at(schedule.log_snr(times)), times, atol=1e-9)
    assert schedule.time_at(1e3) == pytest.approx(schedule.t_min, abs=1e-12)
    if not schedule.discrete or np.isfinite(schedule.log_snr(schedule.t_max)):
        assert schedule.time_at(-1e3) == pytest.approx(schedule.t_max, abs=1e-12)
    assert schedule.time_at(-np.inf) == pytest.approx(schedule.t_max, abs=1e-12)
    alpha, sigma = schedule.split(schedule.log_snr(times))
    np.testing.assert_array_equal(alpha, schedule.alpha(times))
    np.testing.assert_array_equal(sigma, schedule.sigma(times))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule.linear(30),
        Schedule.scaled_linear(30),
        Schedule.cosine(30, s=0.01),
        Schedule.sigmoid(30, tau=0.5),
        Schedule.from_betas([0.1, 0.2, 0.3]),
        Schedule.from_alphas_cumprod([0.9, 0.5, 0.0]),
        Schedule.scaled_linear(30).rescale_zero_terminal_snr(),
    ],
    ids=repr,
)
def test_config_round_trip(schedule: Schedule) -> None:
    again = Schedule.from_config(json.loads(json.dumps(schedule.to_config())))
    assert again == schedule and np.array_equal(again.alphas_cumprod, schedule.alphas_cumprod)
    assert hash(again) == hash(schedule)


def test_own_function_is_not_saved() -> None:
    schedule = Schedule.from_log_snr(lambda t: -t)
    with pytest.raises(ValueError, match="own function"):
        schedule.to_config()
    with pytest.raises(ValueError, match="discrete"):
        _ = schedule.T
    with pytest.raises(ValueError, match="discrete"):
        schedule.rescale_zero_terminal_snr()


def test_is_immutable() -> None:
    schedule = Schedule.linear(10)
    with pytest.raises(AttributeError):
        schedule.kind = "ve"
    with pytest.raises(ValueError, match="read-only"):
        schedule.alphas_cumprod[0] = 0.5
    with pytest.raises(TypeError, match="named constructor"):
        Schedule()


@pytest.mark.parametrize("t", [-0.5, 10, 9.1, -2, np.nan])
def test_times_out_of_range(t: float) -> None:
    with pytest.raises(ValueError, match="t must be"):
        Schedule.linear(10).alpha(t)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Schedule.linear(0),
        lambda: Schedule.linear(2.5),
        lambda: Schedule.linear(True),
        lambda: Schedule.linear(10, beta_end=1.5),
        lambda: Schedule.linear(10, beta_start=0.0),
        lambda: Schedule.scaled_linear(10, beta_start=-1),
        lambda: Schedule.cosine(10, max_beta=1.0),
        lambda: Schedule.sigmoid(10, start=3, end=-3),
        lambda: Schedule.from_betas([]),
        lambda: Schedule.from_betas([[0.1]]),
        lambda: Schedule.from_betas([0.1, np.nan]),
        lambda: Schedule.from_betas([0.1, 1.0, 0.1]),
        lambda: Schedule.from_alphas_cumprod([0.5, 0.6]),
        lambda: Schedule.from_alphas_cumprod([1.0, 0.6]),
        lambda: Schedule.from_alphas_cumprod([0.5, -0.1]),
        lambda: Schedule.from_log_snr(lambda t: t),
        lambda: Schedule.from_log_snr(lambda t: 0.0),
        lambda: Schedule.from_log_snr(lambda t: -t, t_min=1, t_max=0),
        lambda: Schedule.from_log_snr(lambda t: -t, kind="vq"),
        lambda: Schedule.linear(1).rescale_zero_terminal_snr(),
    ],
)
def test_bad_arguments(build) -> None:
    with pytest.raises(ValueError, match="must|beta"):
        build()


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match="linear, scaled_linear, cosine, sigmoid, edm, truncated_cosine, got 'cosin'"
    ):
        Schedule.named("cosin")
