"""Which times a solver visits: `steps` of them, strictly falling; the clean end comes after the last.

For a discrete schedule with T levels and n steps (Lin et al. 2023, table 2, counted from 0):

    trailing   round(T - i T / n) - 1         starts at T - 1
    linspace   round of T - 1 ... 0           starts at T - 1, ends at 0
    leading    floor(i T / n), reversed       ends at 0; equal to range(0, T, T // n) where n divides T
    quad       (i sqrt(0.8 T) / (n - 1))^2    ends at 0, dense there (Song et al. 2021); where rounding would
                                              repeat a time the next free one is taken, so there are always n

and the same shapes over [t_min, t_max] for a continuous schedule. The spacings by noise level (karras, exponential,
log_snr, ays) are those of `fastdiff.solvers.levels`. A single step always starts at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fastdiff.schedule import CLEAN, Schedule
from fastdiff.solvers.levels import LEVEL_SPACINGS, level_times

Floats = NDArray[np.float64]


def timesteps_of(
    schedule: Schedule, steps: int | None, spacing: str = "trailing", timesteps: Sequence[float] | None = None
) -> Floats:
    """The starting time of each of `steps` steps, strictly falling float64 (steps,).

    Args:
        schedule: Whose times.
        steps: How many; 1 ... T for a discrete schedule, >= 1 for a continuous one.
        spacing: One of `SPACINGS`.
        timesteps: An explicit list instead; `steps` must then be its length or None. A final -1 is optional. Times
            between integers are allowed and make the network be told float times.

    Raises:
        ValueError: for a count, a name or a list that does not fit.
    """
    if timesteps is not None:
        return _explicit(schedule, steps, timesteps)
    count = _checked_count(schedule, steps)
    if spacing not in SPACINGS:
        raise ValueError(f"spacing: spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    if count == 1:
        return np.array([schedule.t_max])
    if spacing in LEVEL_SPACINGS:
        return level_times(schedule, count, spacing)
    if schedule.discrete:
        return _DISCRETE[spacing](schedule.T, count)
    return schedule.t_min + (schedule.t_max - schedule.t_min) * _CONTINUOUS[spacing](count)


def _checked_count(schedule: Schedule, steps: int | None) -> int:
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"spacing: steps must be an integer, got {steps!r}")
    if steps < 1 or (schedule.discrete and steps > schedule.T):
        limit = f"in 1 ... {schedule.T} (the schedule has that many)" if schedule.discrete else ">= 1"
        raise ValueError(f"spacing: steps must be {limit}, got {steps}")
    return int(steps)


def _explicit(schedule: Schedule, steps: int | None, timesteps: Sequence[float]) -> Floats:
    times = np.array(timesteps, dtype=np.float64)
    if times.ndim == 1 and times.size > 1 and times[-1] == CLEAN:
        times = times[:-1]
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"spacing: timesteps must be a non-empty list, got shape {times.shape}")
    if steps is not None and steps != len(times):
        raise ValueError(f"spacing: steps must be the number of timesteps, {len(times)}, got {steps}")
    if not (np.all(np.diff(times) < 0) and times[0] <= schedule.t_max and times[-1] >= schedule.t_min):
        raise ValueError(
            f"spacing: timesteps must fall strictly within [{schedule.t_min:g}, {schedule.t_max:g}], "
            f"got {times[0]:g} ... {times[-1]:g}"
        )
    return times


def _trailing(T: int, steps: int) -> Floats:
    return np.round(T - np.arange(steps) * T / steps) - 1.0


def _linspace(T: int, steps: int) -> Floats:
    return np.round(np.linspace(T - 1, 0, steps))


def _leading(T: int, steps: int) -> Floats:
    return (np.arange(steps)[::-1] * T // steps).astype(np.float64)


def _quad(T: int, steps: int) -> Floats:
    times = np.floor(_quad_fractions(steps) * T + 1e-9)
    for i in range(steps - 2, -1, -1):
        times[i] = max(times[i], times[i + 1] + 1)
    return times


def _quad_fractions(steps: int) -> Floats:
    return np.linspace(np.sqrt(0.8), 0.0, steps) ** 2


_DISCRETE: dict[str, Callable[[int, int], Floats]] = {
    "leading": _leading,
    "linspace": _linspace,
    "trailing": _trailing,
    "quad": _quad,
}
_CONTINUOUS: dict[str, Callable[[int], Floats]] = {
    "leading": lambda n: np.arange(n)[::-1] / n,
    "linspace": lambda n: np.linspace(1.0, 0.0, n),
    "trailing": lambda n: 1.0 - np.arange(n) / n,
    "quad": _quad_fractions,
}
SPACINGS: tuple[str, ...] = (*_DISCRETE, *LEVEL_SPACINGS)
