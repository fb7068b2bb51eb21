"""Every spacing gives the asked number of strictly falling times; explicit lists are checked."""

from __future__ import annotations

import numpy as np
import pytest

from fastdiff.schedule import Schedule
from fastdiff.solvers import SPACINGS, timesteps_of

LINEAR = Schedule.linear(1000)


@pytest.mark.parametrize("T", [1, 2, 3, 10, 97, 250])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_any_step_count(spacing: str, T: int) -> None:
    schedule = Schedule.linear(T)
    for steps in range(1, T + 1):
        times = timesteps_of(schedule, steps, spacing)
        assert len(times) == steps
        assert np.all(np.diff(times) < 0)
        assert times[-1] >= 0
        assert times[0] <= T - 1
        assert np.array_equal(times, np.floor(times))
        if steps == 1 or spacing in ("trailing", "linspace"):
            assert times[0] == T - 1
    assert np.array_equal(timesteps_of(schedule, T, spacing), np.arange(T)[::-1])


@pytest.mark.parametrize("T", [600, 400])
def test_golden_trailing(T: int) -> None:
    expected = {600: [599, 479, 359, 239, 119], 400: [399, 319, 239, 159, 79]}[T]
    assert timesteps_of(Schedule.linear(T), 5).tolist() == expected
    published = np.linspace(-1, T - 1, 6).astype(int)[::-1][:-1]
    assert timesteps_of(Schedule.linear(T), 5).tolist() == published.tolist()


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 25, 50, 100, 250])
def test_published_formulas(steps: int) -> None:
    assert timesteps_of(LINEAR, steps, "leading").tolist() == list(range(0, 1000, 1000 // steps))[::-1]
    trailing = np.round(np.arange(1000, 0, -1000 / steps)) - 1
    assert timesteps_of(LINEAR, steps, "trailing").tolist() == trailing.tolist()
    linspace = np.round(np.linspace(0, 999, steps))[::-1]
    assert timesteps_of(LINEAR, steps, "linspace").tolist() == linspace.tolist()
    quad = (np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2).astype(int)[::-1]
    if len(set(quad.tolist())) == steps:
        assert timesteps_of(LINEAR, steps, "quad").tolist() == quad.tolist()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_continuous_schedules(spacing: str) -> None:
    schedule = Schedule.from_log_snr(lambda t: 10 - 20 * t, t_min=0.1, t_max=0.9)
    for steps in (1, 2, 7, 3000):
        times = timesteps_of(schedule, steps, spacing)
        assert len(times) == steps
        assert np.all(np.diff(times) < 0)
        assert times[0] <= 0.9 + 1e-12
        assert times[-1] >= 0.1 - 1e-12
    assert timesteps_of(schedule, 1, spacing).tolist() == [0.9]
    assert timesteps_of(schedule, 4).tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])


def test_explicit_list() -> None:
    assert timesteps_of(LINEAR, None, timesteps=[900, 10, 3]).tolist() == [900, 10, 3]
    assert timesteps_of(LINEAR, 3, timesteps=[900, 10.5, 0]).tolist() == [900, 10.5, 0]
    assert timesteps_of(LINEAR, 2, timesteps=[900, 10, -1]).tolist() == [900, 10]


@pytest.mark.parametrize(
    "timesteps", [[], [-1], [3, 3], [3, 5], [1000, 3], [5, -2], [[5, 3]], [5, np.nan], [np.nan], [5, -1, -1]]
)
def test_explicit_list_refused(timesteps: list) -> None:
    with pytest.raises(ValueError, match="timesteps must"):
        timesteps_of(LINEAR, None, timesteps=timesteps)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_step_count_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps must be in 1 \.\.\. 1000 .*got {steps}"):
        timesteps_of(LINEAR, steps)
    with pytest.raises(ValueError, match="number of timesteps, 2"):
        timesteps_of(LINEAR, 3, timesteps=[5, 4])


@pytest.mark.parametrize("steps", [2.5, "5", True, None])
def test_step_type_refused(steps: object) -> None:
    with pytest.raises(TypeError, match="steps must be an integer"):
        timesteps_of(LINEAR, steps)


def test_unknown_spacing_lists_the_known() -> None:
    with pytest.raises(
        ValueError,
        match="leading, linspace, trailing, quad, karras, exponential, log_snr, ays, ays_sdxl, got 'karas'",
    ):
        timesteps_of(LINEAR, 5, "karas")
