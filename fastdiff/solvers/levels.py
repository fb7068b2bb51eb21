"""Spacings by noise level instead of time: the levels `ratio = sigma / alpha` of a run, and the times they lie at.

    karras        ratio^(1 / rho) evenly spaced, rho = 7 (Karras et al. 2022, arXiv 2206.00364, eq. 5)
    exponential   log ratio evenly spaced; log_snr is the same under the name people know it by
    ays           Align Your Steps (Sabour et al. 2024, arXiv 2404.14507): ten tuned steps of Stable Diffusion 1.5,
                  for other counts interpolated log-linearly; ays_sdxl the same of its larger sister

The first two run between the ends of the schedule. The tables hold absolute levels; what lies beyond a schedule's ends
is visited at its end.

A level of a discrete schedule falls between two of its times. A spacing asked for by name visits the nearest distinct
whole times, which every network trained on them accepts. `level_times(..., whole=False)` returns the exact times;
handed to a solver as `timesteps` they are told to the network as float32, which is right only for networks that take
times between integers (sinusoidal embeddings do, tables of embeddings do not).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdiff.schedule import Schedule

Floats = NDArray[np.float64]

#: Levels after n = 10 steps started at each but the last, which stands for the clean end.
AYS_TABLES: dict[str, tuple[float, ...]] = {
    "ays": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays_sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
LEVEL_SPACINGS = ("karras", "exponential", "log_snr", *AYS_TABLES)


def level_times(
    schedule: Schedule, steps: int, spacing: str = "karras", *, rho: float = 7.0, whole: bool = True
) -> Floats:
    """The times of `steps` levels, strictly falling float64 (steps,).

    Args:
        schedule: Whose times.
        steps: How many, >= 1; at most T where times are whole.
        spacing: One of `LEVEL_SPACINGS`.
        rho: Of karras: larger puts more steps at low noise.
        whole: In a discrete schedule, the nearest distinct whole times instead of the exact ones.

    Raises:
        ValueError: for an unknown spacing, rho <= 0, a count that does not fit, or levels that coincide at the ends
            of a schedule.
    """
    if spacing not in LEVEL_SPACINGS:
        raise ValueError(f"level_times: spacing must be one of {', '.join(LEVEL_SPACINGS)}, got {spacing!r}")
    if not rho > 0:
        raise ValueError(f"level_times: rho must be > 0, got {rho}")
    if steps < 1 or (whole and schedule.discrete and steps > schedule.T):
        raise ValueError(f"level_times: steps must be >= 1 and at most T, got {steps}")
    times = _times_of(schedule, steps, spacing, rho)
    if schedule.discrete and whole:
        return distinct(times, schedule.T)
    if not np.all(np.diff(times) < 0):
        raise ValueError(
            f"level_times: {spacing} must have distinct levels within the schedule, got {steps} steps that meet"
        )
    return times


def _times_of(schedule: Schedule, steps: int, spacing: str, rho: float) -> Floats:
    if spacing in AYS_TABLES:
        return schedule.time_at(-2 * np.log(_interpolated(AYS_TABLES[spacing], steps)))
    low, high, infinite = _ends(schedule)
    count = steps - infinite
    times = schedule.time_at(-2 * np.log(_SHAPES[spacing](high, low, max(count, 1), rho)))[:count]
    if count and not infinite:
        times[0] = schedule.t_max
    return np.concatenate(([schedule.t_max] * infinite, times))


def _ends(schedule: Schedule) -> tuple[float, float, int]:
    """(lowest, highest finite ratio, 1 when a step from pure noise comes before it)."""
    span = 1.0 if schedule.discrete else 1e-3 * (schedule.t_max - schedule.t_min)
    first, last = schedule.t_max, schedule.t_min
    infinite = int(np.isinf(schedule.log_snr(first)))
    first -= infinite * span
    last += 0.0 if np.isfinite(schedule.log_snr(last)) else span
    low, high = np.exp(-schedule.log_snr(np.array([last, first])) / 2)
    return float(low), float(high), infinite


def _karras(high: float, low: float, steps: int, rho: float) -> Floats:
    return np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho


def _exponential(high: float, low: float, steps: int, rho: float) -> Floats:
    return np.exp(np.linspace(np.log(high), np.log(low), steps))


_SHAPES: dict[str, Callable[[float, float, int, float], Floats]] = {
    "karras": _karras,
    "exponential": _exponential,
    "log_snr": _exponential,
}


def _interpolated(table: tuple[float, ...], steps: int) -> Floats:
    """Levels at which `steps` steps start; the end of the table is where the last one would."""
    places = np.linspace(0, len(table) - 1, steps + 1)[:-1]
    return np.exp(np.interp(places, np.arange(len(table)), np.log(table)))


def distinct(times: ArrayLike, T: int) -> Floats:
    """The whole times nearest to falling `times` (n,), n <= T, each used once and within 0 ... T - 1."""
    nearest = np.round(np.asarray(times, dtype=np.float64))
    room = np.arange(len(nearest))
    nearest = np.clip(nearest, len(nearest) - 1 - room, T - 1 - room)
    return np.minimum.accumulate(nearest + room) - room
