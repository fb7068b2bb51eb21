"""Spacings by noise level: formulas, published times, whole and exact times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import level_times, timesteps_of
from fastdiff.solvers.closed_form import MixtureNetwork
from fastdiff.solvers.levels import LEVEL_SPACINGS, distinct

LATENT = Schedule.scaled_linear(1000)


def ratio(schedule: Schedule, times: np.ndarray) -> np.ndarray:
    return schedule.sigma(times) / schedule.alpha(times)


@pytest.mark.parametrize(
    ("spacing", "published"),
    [
        ("ays", [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]),
        ("ays_sdxl", [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]),
    ],
)
def test_align_your_steps_visits_the_published_times(spacing: str, published: list[int]) -> None:
    times = timesteps_of(LATENT, 10, spacing)
    assert np.abs(times - published).max() <= 1
    twenty = level_times(LATENT, 20, spacing, whole=False)
    np.testing.assert_allclose(twenty[::2], level_times(LATENT, 10, spacing, whole=False), rtol=1e-9)
    between = np.sqrt(ratio(LATENT, twenty[2]) * ratio(LATENT, twenty[4]))
    assert ratio(LATENT, twenty[3]) == pytest.approx(between, rel=1e-9)


def test_karras_levels() -> None:
    edm = Schedule.edm()
    sigmas = level_times(edm, 18)
    i = np.arange(18) / 17
    np.testing.assert_allclose(
        sigmas, (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, rtol=1e-9
    )
    np.testing.assert_allclose(ratio(edm, sigmas), sigmas, rtol=1e-12)
    assert (level_times(edm, 18, rho=3.0)[1:-1] > sigmas[1:-1]).all()


@pytest.mark.parametrize("spacing", ["exponential", "log_snr"])
def test_exponential_is_even_in_log_snr(spacing: str) -> None:
    exact = level_times(LATENT, 12, spacing, whole=False)
    gaps = np.diff(LATENT.log_snr(exact))
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-9)
    assert (exact[0], exact[-1]) == (999.0, 0.0)


@pytest.mark.parametrize("spacing", LEVEL_SPACINGS)
def test_named_spacings_are_whole_and_near(spacing: str) -> None:
    for steps in (2, 10, 30):
        exact, whole = level_times(LATENT, steps, spacing, whole=False), timesteps_of(LATENT, steps, spacing)
        assert np.array_equal(whole, np.floor(whole))
        crowded = np.diff(exact).max() > -1.5
        assert crowded or np.abs(whole - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("spacing", LEVEL_SPACINGS)
def test_zero_terminal_snr_has_a_step_from_pure_noise(spacing: str) -> None:
    zero = LATENT.rescale_zero_terminal_snr()
    times = timesteps_of(zero, 8, spacing)
    assert len(times) == 8
    assert np.all(np.diff(times) < 0)
    assert spacing.startswith("ays") or times[:2].tolist() == [999.0, 998.0]


@pytest.mark.parametrize(
    ("times", "T", "expected"),
    [
        ([9.2, 3.4, 3.3, 0.1], 10, [9, 3, 2, 0]),
        ([0.4, 0.3, 0.2], 5, [2, 1, 0]),
        ([4.0, 4.0, 4.0], 5, [4, 3, 2]),
        ([7.9, 7.8, 0.2, 0.1, 0.0], 8, [7, 6, 2, 1, 0]),
    ],
)
def test_distinct(times: list[float], T: int, expected: list[int]) -> None:
    assert distinct(times, T).tolist() == expected


def test_the_network_is_told_whole_times_by_name_and_floats_by_list() -> None:
    told: list[torch.Tensor] = []
    exact_network = MixtureNetwork(LATENT, "eps", [0.1], [0.4])

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(t)
        return exact_network(x, t)

    options = {"schedule": LATENT, "prediction": "eps", "shape": (2,), "num": 1}
    sample(network, 7, spacing="karras", **options)
    assert {t.dtype for t in told} == {torch.int64}
    told.clear()
    sample(network, level_times(LATENT, 7, whole=False).tolist(), **options)
    assert {t.dtype for t in told} == {torch.float32}
    assert any(float(t) % 1 for t in told)


def test_refused() -> None:
    for arguments, message in [
        ({"spacing": "karas"}, "spacing must be one of karras"),
        ({"rho": 0.0}, "rho must be > 0"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"steps": 1001}, "at most T"),
    ]:
        with pytest.raises(ValueError, match=message):
            level_times(LATENT, **{"steps": 5, **arguments})
    with pytest.raises(ValueError, match="must have distinct levels"):
        level_times(Schedule.edm(1.0, 2.0), 10, "ays")
