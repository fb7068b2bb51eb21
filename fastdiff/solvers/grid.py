"""The noise levels a solver visits, and the rows it writes between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdiff.ops.row import column, make_row
from fastdiff.prediction import PLAIN, check_prediction, input_scale, told_time, x0_coefficients
from fastdiff.schedule import CLEAN, Schedule
from fastdiff.solvers.spacing import timesteps_of
from fastdiff.solvers.table import StepTable

Row = NDArray[np.float64]
Clip = tuple[float, float] | None
UNIT: Clip = (-1.0, 1.0)


class GridOptions(TypedDict, total=False):
    """The keyword arguments that every solver hands to `make_grid`, which explains them."""

    spacing: str
    timesteps: Sequence[float] | None
    clip: Clip


@dataclass(frozen=True)
class Level:
    """One noise level: `x = alpha * x0 + sigma * eps` at time `t`. The clean one has t = -1, sigma = 0."""

    t: float
    alpha: float
    sigma: float
    log_snr: float

    @property
    def lam(self) -> float:
        """log(alpha / sigma), half the log-SNR: the time of exponential integrators."""
        return self.log_snr / 2

    @property
    def ratio(self) -> float:
        """sigma / alpha: the noise level after division by alpha; inf where alpha is 0."""
        return float(np.exp(-self.lam))

    @property
    def clean(self) -> bool:
        """True for the end of every grid."""
        return self.sigma == 0.0

    def share_of_noise(self, cleaner: Level) -> float:
        """Part of this level's variance that is not yet in `cleaner`: 1 - SNR / SNR', in [0, 1], exact at the ends."""
        return 1.0 if cleaner.clean or self.alpha == 0 else float(-np.expm1(self.log_snr - cleaner.log_snr))


def levels_at(schedule: Schedule, times: ArrayLike) -> tuple[Level, ...]:
    """The levels of `schedule` at times (n,); -1 is clean."""
    values = np.asarray(times, dtype=np.float64)
    columns = (values, schedule.alpha(values), schedule.sigma(values), schedule.log_snr(values))
    return tuple(Level(*map(float, numbers)) for numbers in zip(*columns, strict=True))


@dataclass(frozen=True)
class Grid:
    """Levels of strictly falling noise, the last one clean, and how the network's output is read at them.

    Args:
        schedule: Whose levels.
        levels: n + 1 levels, n >= 1.
        prediction: What the network returns.
        clip: Range that estimates of x0 are clamped to, or None.
    """

    schedule: Schedule
    levels: tuple[Level, ...]
    prediction: str
    clip: Clip

    def __len__(self) -> int:
        return len(self.levels) - 1

    def steps(self) -> Iterator[tuple[int, Level, Level]]:
        """(index, level, next level) of each step; "the previous timestep" is the next entry of the list."""
        return zip(range(len(self)), self.levels, self.levels[1:])

    def row(self, index: int, now: Level, then: Level, **columns: float) -> Row:
        """A row that evaluates the network at `now` and leads to `then`, with x0 read and clamped.

        The solver adds its own columns (b, a, s, ...), or replaces any that are set here.
        """
        try:
            u_x, u_m = x0_coefficients(self.prediction, now.alpha, now.sigma)
            told = told_time(self.prediction, now.t, now.log_snr)
        except ValueError as error:
            raise ValueError(f"solver: at t = {now.t:g}, {error}") from None
        lo, hi = (-np.inf, np.inf) if self.clip is None else self.clip
        base = {"eval": 1, "t": told, "u_x": u_x, "u_m": u_m, "lo": lo, "hi": hi, "noise_row": index}
        base["c_in"] = input_scale(self.prediction, now.alpha, now.sigma)
        return make_row(**{**base, "i_y": then.alpha, "i_s": then.sigma, **columns})

    def between(self, log_snr: float) -> Level:
        """A level that is not in the list, as two-stage solvers visit; its time may lie between integers."""
        alpha, sigma = self.schedule.split(log_snr)
        return Level(float(self.schedule.time_at(log_snr)), float(alpha), float(sigma), log_snr)

    def _whole_times(self, times: NDArray[np.float64]) -> bool:
        """Whether the network is told integers."""
        plain = self.prediction in PLAIN and self.schedule.discrete
        return plain and bool(np.all(times == np.floor(times)))

    def table(self, solver: str, rows: Sequence[Row], *, history: int = 0) -> StepTable:
        """The finished table; a "vp" run starts from unit noise, the other kinds from sigma times it."""
        first, stacked = self.levels[0], np.stack(rows)
        times = stacked[stacked[:, column("eval")] == 1, column("t")]
        return StepTable(
            stacked,
            solver=solver,
            history=history,
            discrete_time=self._whole_times(times),
            init_noise=1.0 if self.schedule.kind == "vp" else first.sigma,
            start=(first.alpha, first.sigma),
        )


def make_grid(
    schedule: Schedule,
    prediction: str,
    steps: int | None,
    *,
    spacing: str = "trailing",
    timesteps: Sequence[float] | None = None,
    clip: Clip = UNIT,
) -> Grid:
    """The grid of a run; the arguments every solver shares.

    Args:
        schedule: Noise schedule.
        prediction: What the network returns, see `fastdiff.prediction`.
        steps: Number of steps, 1 ... T; None with explicit `timesteps`.
        spacing: How the steps are spread, see `fastdiff.solvers.spacing`.
        timesteps: Explicit strictly falling times instead.
        clip: (lo, hi) for estimates of x0, or None.

    Raises:
        ValueError: for an argument out of range.
    """
    check_prediction(prediction, "solver")
    times = timesteps_of(schedule, steps, spacing, timesteps)
    levels = levels_at(schedule, (*times, CLEAN))
    if levels[-2].clean:
        raise ValueError(f"solver: sigma must be > 0 at the last timestep, got 0 at t = {times[-1]:g}")
    return Grid(schedule, levels, prediction, _checked_clip(clip))


def _checked_clip(clip: Clip) -> Clip:
    if clip is None:
        return None
    if len(clip) != 2 or not clip[0] < clip[1]:
        raise ValueError(f"solver: clip must be None or (low, high) with low < high, got {clip}")
    return float(clip[0]), float(clip[1])
