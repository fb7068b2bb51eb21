"""Noise schedules: what `alpha` and `sigma` are at a time `t`.

A noisy state is `x_t = alpha(t) * x0 + sigma(t) * noise`. Every schedule is a log signal-to-noise ratio
`log_snr(t) = 2 log(alpha / sigma)` that falls with `t`, and a `kind` that says how alpha and sigma follow from it:

    "vp"    alpha^2 + sigma^2 = 1      (DDPM, VDM)
    "ve"    alpha = 1                  (EDM, score matching)
    "flow"  alpha + sigma = 1          (rectified flow)

Discrete schedules know `t = 0 ... T-1`. In both families `t = -1` names clean data: alpha = 1, sigma = 0.
All numbers are numpy float64 on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
KINDS = ("vp", "ve", "flow")
CLEAN = -1.0


class Schedule:
    """An immutable noise schedule. Build one with a named constructor, for example `Schedule.cosine(1000)`."""

    __slots__ = ("_alphas_cumprod", "_config", "_log_snr", "kind", "t_max", "t_min")
    _alphas_cumprod: Floats | None
    _config: dict[str, Any] | None
    _log_snr: Callable[[Floats], ArrayLike] | None
    kind: str
    t_min: float
    t_max: float

    def __init__(self) -> None:
        raise TypeError(
            "Schedule: must be built by a named constructor (linear, scaled_linear, cosine, sigmoid, from_betas, "
            "from_alphas_cumprod, from_log_snr, named, from_config), got a bare call"
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Schedule: is immutable, cannot set {name}")

    def __deepcopy__(self, *_: Any) -> Schedule:
        return self

    __copy__ = __deepcopy__

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule.from_config, (self.to_config(),)

    @classmethod
    def _build(cls, **fields: Any) -> Schedule:
        self = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        return self

    # -- discrete -----------------------------------------------------------------------------------------------

    @classmethod
    def linear(cls, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """Betas evenly spaced from `beta_start` to `beta_end`, both in (0, 1) (Ho et al. 2020)."""
        betas = np.linspace(beta_start, beta_end, _count(T, "linear"))
        return cls._of_betas(betas, "linear", T=T, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def scaled_linear(cls, T: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """Square roots of the betas evenly spaced (latent diffusion, Rombach et al. 2022)."""
        if not (beta_start > 0 and beta_end > 0):
            raise ValueError(f"scaled_linear: betas must be > 0, got {beta_start} and {beta_end}")
        betas = np.square(np.linspace(beta_start**0.5, beta_end**0.5, _count(T, "scaled_linear")))
        return cls._of_betas(betas, "scaled_linear", T=T, beta_start=beta_start, beta_end=beta_end)

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """alpha^2 = cos^2 with a small offset `s`, betas capped at `max_beta` (Nichol and Dhariwal 2021, eq. 17)."""
        u = np.linspace(0.0, 1.0, _count(T, "cosine") + 1)
        betas = _capped_betas(np.cos((u + s) / (1 + s) * np.pi / 2) ** 2, max_beta)
        return cls._of_betas(betas, "cosine", T=T, s=s, max_beta=max_beta)

    @classmethod
    def sigmoid(
        cls, T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
    ) -> Schedule:
        """alpha^2 follows a falling sigmoid from `start` to `end` at temperature `tau` (Jabri et al. 2022)."""
        if not (end > start and tau > 0):
            raise ValueError(f"sigmoid: start < end and tau > 0 must hold, got {start}, {end}, {tau}")
        u = np.linspace(0.0, 1.0, _count(T, "sigmoid") + 1)
        curve = _sigmoid((u * (end - start) + start) / tau)
        betas = _capped_betas((curve[-1] - curve) / (curve[-1] - curve[0]), max_beta)
        return cls._of_betas(betas, "sigmoid", T=T, start=start, end=end, tau=tau, max_beta=max_beta)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> Schedule:
        """From per-step noise variances `betas` (T,) in (0, 1]; only the last may be 1."""
        values = _vector(betas, "from_betas", "betas")
        return cls._of_betas(values, "from_betas", betas=values.tolist())

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: ArrayLike) -> Schedule:
        """From alpha^2 at t = 0 ... T-1: strictly decreasing within (0, 1); only the last may be 0."""
        values = _vector(alphas_cumprod, "from_alphas_cumprod", "alphas_cumprod")
        return cls._of_alphas_cumprod(
            values, {"name": "from_alphas_cumprod", "alphas_cumprod": values.tolist()}, "from_alphas_cumprod"
        )

    @classmethod
    def _of_betas(cls, values: Floats, place: str, **config: Any) -> Schedule:
        if not (np.all(values > 0) and np.all(values <= 1)):
            raise ValueError(f"{place}: betas must lie in (0, 1], got {values.min():g} to {values.max():g}")
        return cls._of_alphas_cumprod(
            np.cumprod(1.0 - values, dtype=np.float64), {"name": place, **config}, place
        )

    @classmethod
    def _of_alphas_cumprod(cls, values: Floats, config: dict[str, Any], place: str) -> Schedule:
        if not (values[0] < 1 and values[-1] >= 0 and np.all(np.diff(values) < 0)):
            raise ValueError(
                f"{place}: alphas_cumprod must decrease strictly from below 1 to 0 or more, got "
                f"{values[0]:g} to {values[-1]:g}"
            )
        values = np.array(values)
        values.setflags(write=False)
        return cls._build(
            _alphas_cumprod=values,
            _log_snr=None,
            _config=config,
            kind="vp",
            t_min=0.0,
            t_max=float(len(values) - 1),
        )

    def rescale_zero_terminal_snr(self) -> Schedule:
        """The same discrete schedule moved so that the last alpha is exactly 0 and the first is kept.

        Lin et al. 2023 (arXiv 2305.08891), algorithm 1. Such a schedule needs an x0 or v network.
        """
        if self._alphas_cumprod is None:
            raise ValueError("rescale_zero_terminal_snr: schedule must be discrete, got a continuous one")
        if self.T < 2:
            raise ValueError(f"rescale_zero_terminal_snr: T must be >= 2, got {self.T}")
        root = np.sqrt(self._alphas_cumprod)
        moved = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        moved[0], moved[-1] = root[0], 0.0
        return self._of_alphas_cumprod(
            moved**2, {**self.to_config(), "zero_terminal_snr": True}, "rescale_zero_terminal_snr"
        )

    # -- continuous ---------------------------------------------------------------------------------------------

    @classmethod
    def from_log_snr(
        cls,
        log_snr: Callable[[Floats], ArrayLike],
        *,
        t_min: float = 0.0,
        t_max: float = 1.0,
        kind: str = "vp",
    ) -> Schedule:
        """From a continuous log-SNR function of float64 arrays, strictly falling on [t_min, t_max], t_min >= 0.

        Args:
            log_snr: log(alpha^2 / sigma^2) for an array of times; finite inside the range.
            t_min: Time of the least noise the network was trained on.
            t_max: Time of the most noise.
            kind: "vp", "ve" or "flow": how alpha and sigma follow from the log-SNR.
        """
        if kind not in KINDS:
            raise ValueError(f"from_log_snr: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if not 0 <= t_min < t_max:
            raise ValueError(f"from_log_snr: 0 <= t_min < t_max must hold, got {t_min} and {t_max}")
        probe = np.asarray(log_snr(np.linspace(t_min, t_max, 101)), dtype=np.float64)
        if probe.shape != (101,) or np.isnan(probe).any() or not np.all(np.diff(probe) < 0):
            raise ValueError(
                "from_log_snr: log_snr must map (N,) times to (N,) strictly falling values, got otherwise"
            )
        ends = {"t_min": float(t_min), "t_max": float(t_max)}
        return cls._build(_alphas_cumprod=None, _log_snr=log_snr, _config=None, kind=kind, **ends)

    @classmethod
    def edm(cls, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
        """Alpha = 1 and the time is sigma itself (Karras et al. 2022, arXiv 2206.00364)."""
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"edm: 0 < sigma_min < sigma_max must hold, got {sigma_min} and {sigma_max}")
        schedule = cls.from_log_snr(lambda t: -2 * np.log(t), t_min=sigma_min, t_max=sigma_max, kind="ve")
        return schedule._configured("edm", sigma_min=sigma_min, sigma_max=sigma_max)

    @classmethod
    def truncated_cosine(
        cls,
        log_snr_min: float = -15.0,
        log_snr_max: float = 15.0,
        image_size: int | None = None,
        noise_size: int = 64,
        noise_size_end: int | None = None,
    ) -> Schedule:
        """Continuous cosine, -2 log tan(a + t (b - a)) on [0, 1]; shifted or interpolated where `image_size` is given.

        The shift, 2 log(noise_size / image_size), gives images of `image_size` pixels the noise that `noise_size`
        pixels would see. With `noise_size_end` it goes evenly from the one at t = 0 to the other at t = 1. Source:
        simple diffusion (Hoogeboom et al. 2023, arXiv 2301.11093), eq. 4 and 6.
        """
        options = {
            **{"log_snr_min": log_snr_min, "log_snr_max": log_snr_max, "image_size": image_size},
            **{"noise_size": noise_size, "noise_size_end": noise_size_end},
        }
        if not log_snr_min < log_snr_max:
            raise ValueError(
                f"truncated_cosine: log_snr_min < log_snr_max must hold, got {log_snr_min} and {log_snr_max}"
            )
        first, last = (float(np.arctan(np.exp(-end / 2))) for end in (log_snr_max, log_snr_min))
        start, stop = (
            0.0 if image_size is None else _size_shift(image_size, size)
            for size in (noise_size, noise_size if noise_size_end is None else noise_size_end)
        )

        def log_snr(t: Floats) -> Floats:
            return np.asarray(-2 * np.log(np.tan(first + t * (last - first))) + (1 - t) * start + t * stop)

        return cls.from_log_snr(log_snr)._configured("truncated_cosine", **options)

    def _configured(self, name: str, **options: Any) -> Schedule:
        """The same schedule, which knows how it was asked for."""
        fields = {slot: getattr(self, slot) for slot in Schedule.__slots__}
        return self._build(**{**fields, "_config": {"name": name, **options}})

    # -- what it says -------------------------------------------------------------------------------------------

    @property
    def discrete(self) -> bool:
        """True when the schedule is a list of T noise levels."""
        return self._alphas_cumprod is not None

    @property
    def T(self) -> int:
        """Number of discrete steps; a continuous schedule has none and raises."""
        return len(self.alphas_cumprod)

    @property
    def alphas_cumprod(self) -> Floats:
        """alpha^2 at t = 0 ... T-1, read-only (T,); a continuous schedule has none and raises."""
        if self._alphas_cumprod is None:
            raise ValueError(
                "Schedule: only a discrete schedule has alphas_cumprod and T, got a continuous one"
            )
        return self._alphas_cumprod

    def log_snr(self, t: ArrayLike) -> Floats:
        """log(alpha^2 / sigma^2) at times `t` of any shape; +inf at t = -1, -inf where alpha is 0."""
        times = self._times(t)
        inside = np.where(times == CLEAN, self.t_min, times)
        values = (
            self._discrete_log_snr(inside)
            if self._log_snr is None
            else np.asarray(self._log_snr(inside), float)
        )
        return np.where(times == CLEAN, np.inf, values)

    def alpha(self, t: ArrayLike) -> Floats:
        """Signal coefficient at times `t` of any shape; 1 at t = -1."""
        return np.where(self._times(t) == CLEAN, 1.0, self._scale(self.log_snr(t), 1.0))

    def sigma(self, t: ArrayLike) -> Floats:
        """Noise coefficient at times `t` of any shape; 0 at t = -1."""
        return np.where(self._times(t) == CLEAN, 0.0, self._scale(self.log_snr(t), -1.0))

    def split(self, log_snr: ArrayLike) -> tuple[Floats, Floats]:
        """(alpha, sigma) of this kind of schedule at log-SNR values of any shape."""
        values = np.asarray(log_snr, dtype=np.float64)
        return self._scale(values, 1.0), self._scale(values, -1.0)

    def time_at(self, log_snr: ArrayLike) -> Floats:
        """The inverse of `log_snr`: times of any shape; a value beyond the schedule's gets its nearest end."""
        values = np.asarray(log_snr, dtype=np.float64)
        if self.discrete:
            times = np.arange(self.T, dtype=np.float64)
            knots = self.log_snr(times)
            finite = np.isfinite(knots)
            return np.where(
                values == -np.inf, self.t_max, np.interp(values, knots[finite][::-1], times[finite][::-1])
            )
        low, high = np.full_like(values, self.t_min), np.full_like(values, self.t_max)
        for _ in range(80):
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < values
            low, high = np.where(noisier, low, middle), np.where(noisier, middle, high)
        return (low + high) / 2

    def _scale(self, log_snr: Floats, sign: float) -> Floats:
        """alpha (sign 1) or sigma (sign -1) of this kind at a log-SNR."""
        if self.kind == "flow":
            return _sigmoid(sign * log_snr / 2)
        if self.kind == "ve":
            return np.ones_like(log_snr) if sign > 0 else np.exp(-log_snr / 2)
        return np.sqrt(_sigmoid(sign * log_snr))

    def _times(self, t: ArrayLike) -> Floats:
        times = np.asarray(t, dtype=np.float64)
        ok = (times == CLEAN) | ((times >= self.t_min) & (times <= self.t_max))
        if not np.all(ok):
            bad = times[~ok].flat[0]
            raise ValueError(
                f"Schedule: t must be -1 (clean) or in [{self.t_min:g}, {self.t_max:g}], got {bad:g}"
            )
        return times

    def _discrete_log_snr(self, times: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            knots = np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod)
        low = np.floor(times).astype(np.int64)
        part = times - low
        high = np.where(part > 0, np.minimum(low + 1, len(knots) - 1), low)
        if np.any((part > 0) & np.isinf(knots[high])):
            raise ValueError("Schedule: t must be an integer next to a step with alpha = 0, got a fraction")
        return np.where(
            part > 0, (1 - part) * knots[low] + part * np.where(part > 0, knots[high], 0.0), knots[low]
        )

    # -- files --------------------------------------------------------------------------------------------------

    @classmethod
    def named(cls, name: str, **options: Any) -> Schedule:
        """The schedule called `name` (see `SCHEDULES`) with its options."""
        if name not in SCHEDULES:
            raise ValueError(f"Schedule: name must be one of {', '.join(SCHEDULES)}, got {name!r}")
        return getattr(cls, name)(**options)

    def to_config(self) -> dict[str, Any]:
        """A JSON-able dictionary from which `from_config` builds the same schedule."""
        if self._config is None:
            raise ValueError("Schedule: one of your own function must be saved by you, got to_config()")
        return dict(self._config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """The inverse of `to_config`."""
        options = dict(config)
        name, rescale = options.pop("name", None), options.pop("zero_terminal_snr", False)
        given = name in ("from_betas", "from_alphas_cumprod")
        schedule: Schedule = getattr(cls, name)(**options) if given else cls.named(name, **options)
        return schedule.rescale_zero_terminal_snr() if rescale else schedule

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule) or self.discrete != other.discrete:
            return NotImplemented if not isinstance(other, Schedule) else False
        if not self.discrete:
            return self is other or (self._config is not None and self._config == other._config)
        return np.array_equal(self.alphas_cumprod, other.alphas_cumprod)

    def __hash__(self) -> int:
        return hash((self.discrete, self.kind, self.t_max))

    def __repr__(self) -> str:
        if self._config is None:
            return f"Schedule.from_log_snr(<function>, t_min={self.t_min:g}, t_max={self.t_max:g}, kind={self.kind!r})"
        options = ", ".join(
            f"{k}={v!r}" for k, v in self._config.items() if k != "name" and not isinstance(v, list)
        )
        return f"Schedule.{self._config['name']}({options})"


DISCRETE: tuple[str, ...] = ("linear", "scaled_linear", "cosine", "sigmoid")
SCHEDULES: tuple[str, ...] = (*DISCRETE, "edm", "truncated_cosine")


def _size_shift(image_size: int, noise_size: int) -> float:
    """Shift of the log-SNR that keeps the noise of `noise_size` pixels seen at `image_size` pixels."""
    for name, value in (("image_size", image_size), ("noise_size", noise_size)):
        _count(value, "truncated_cosine", name)
    return 2 * float(np.log(noise_size / image_size))


def _sigmoid(x: Floats) -> Floats:
    """Logistic function, exact to float64 in both tails and 0 or 1 at the infinities."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _capped_betas(alphas_cumprod: Floats, max_beta: float) -> Floats:
    """Betas between neighbours of an alpha^2 curve (T+1,), at most `max_beta`."""
    if not 0 < max_beta < 1:
        raise ValueError(f"Schedule: max_beta must be in (0, 1), got {max_beta}")
    return np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], max_beta)


def _count(T: int, place: str, name: str = "T") -> int:
    if isinstance(T, bool) or not isinstance(T, (int, np.integer)) or T < 1:
        raise ValueError(f"{place}: {name} must be an integer >= 1, got {T!r}")
    return int(T)


def _vector(values: ArrayLike | Sequence[float], place: str, name: str) -> Floats:
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.all(np.isfinite(array)):
        raise ValueError(f"{place}: {name} must be a non-empty finite vector, got shape {array.shape}")
    return array
