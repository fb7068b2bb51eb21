"""Named continuous schedules: the published formulas, and their configurations."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdiff.schedule import Schedule

T = np.linspace(0.0, 1.0, 11)
NAMED = [
    ("edm", {}),
    ("truncated_cosine", {}),
    ("truncated_cosine", {"image_size": 128}),
    ("truncated_cosine", {"image_size": 128, "noise_size": 256, "noise_size_end": 32}),
]


def test_edm_time_is_sigma() -> None:
    schedule = Schedule.edm()
    sigma = np.array([0.002, 0.5, 80.0])
    np.testing.assert_allclose(schedule.sigma(sigma), sigma, rtol=1e-14)
    assert schedule.alpha(sigma).tolist() == [1.0, 1.0, 1.0]
    assert (schedule.kind, schedule.t_min, schedule.t_max) == ("ve", 0.002, 80.0)


def test_truncated_cosine_is_a_cosine_between_its_bounds() -> None:
    schedule = Schedule.truncated_cosine()
    np.testing.assert_allclose(schedule.log_snr([0.0, 0.5, 1.0]), [15.0, 0.0, -15.0], atol=1e-9)
    angle = np.arctan(np.exp(-7.5)) * (1 - T) + np.arctan(np.exp(7.5)) * T
    np.testing.assert_allclose(schedule.alpha(T), np.cos(angle), atol=1e-12)
    np.testing.assert_allclose(schedule.sigma(T), np.sin(angle), atol=1e-12)


def test_shift_and_interpolation_of_simple_diffusion() -> None:
    plain, inside = Schedule.truncated_cosine(), T[1:-1]
    shifted = Schedule.truncated_cosine(image_size=128, noise_size=64)
    np.testing.assert_allclose(shifted.log_snr(inside) - plain.log_snr(inside), 2 * np.log(0.5), rtol=1e-9)
    mixed = Schedule.truncated_cosine(image_size=128, noise_size=256, noise_size_end=32)
    low, high = 2 * np.log(32 / 128), 2 * np.log(256 / 128)
    np.testing.assert_allclose(
        mixed.log_snr(inside) - plain.log_snr(inside), inside * low + (1 - inside) * high, rtol=1e-9
    )


@pytest.mark.parametrize(("name", "options"), NAMED)
def test_configurations_come_back(name: str, options: dict) -> None:
    schedule = Schedule.named(name, **options)
    again = Schedule.from_config(json.loads(json.dumps(schedule.to_config())))
    assert again == schedule
    assert hash(again) == hash(schedule)
    middle = (schedule.t_min + schedule.t_max) / 2
    assert float(again.log_snr(middle)) == float(schedule.log_snr(middle))
    assert repr(schedule).startswith(f"Schedule.{name}(")
    assert schedule != Schedule.truncated_cosine(-9.0, 9.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("edm", {"sigma_min": 0.0}, "0 < sigma_min < sigma_max must hold"),
        ("truncated_cosine", {"log_snr_min": 3.0, "log_snr_max": 1.0}, "log_snr_min < log_snr_max must hold"),
        ("truncated_cosine", {"image_size": 0}, "image_size must be an integer >= 1"),
        ("truncated_cosine", {"image_size": 64, "noise_size_end": 2.5}, "noise_size must be an integer"),
    ],
)
def test_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.named(name, **options)
