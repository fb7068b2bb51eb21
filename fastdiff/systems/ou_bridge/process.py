"""The numbers of an Ornstein-Uhlenbeck process with steps of given lengths, float64 on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdiff.systems.ou_bridge.states import number_tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Process:
    """Steps of an Ornstein-Uhlenbeck process.

    Attributes:
        delta: (T,) lengths of the steps.
        theta: pull, > 0.
        eta2: eta^2, > 0.
    """

    delta: Floats
    theta: float
    eta2: float

    @classmethod
    def of(cls, delta: Tensor | Sequence[float], steps: int, theta: float, eta2: float) -> Process:
        """The process of a caller's numbers, checked.

        Raises:
            ValueError: for numbers out of range, or a schedule of another length than `steps`.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"DiffusionBridge: num_steps must be an integer >= 1, got {steps!r}")
        lengths = number_tensor(delta, "delta_schedule").detach().cpu().numpy()
        if lengths.shape != (steps,):
            raise ValueError(
                f"DiffusionBridge: delta_schedule must have num_steps = {steps} entries, got {lengths.shape}"
            )
        for name, value in (("theta", theta), ("eta2", eta2)):
            if not 0 < value < np.inf:
                raise ValueError(f"DiffusionBridge: {name} must be finite and > 0, got {value}")
        if not (np.all(lengths > 0) and np.isfinite(lengths).all()):
            raise ValueError("DiffusionBridge: delta_schedule must be finite and > 0, got others")
        process = cls(lengths, theta, eta2)
        if process.alpha_bar[-1] <= 0:
            raise ValueError(
                "DiffusionBridge: delta_schedule must leave some signal, got 0 after the last step"
            )
        return process

    @property
    def steps(self) -> int:
        """T."""
        return len(self.delta)

    @property
    def scale(self) -> float:
        """s = eta / sqrt(2 theta), the stationary standard deviation."""
        return float(np.sqrt(self.eta2 / (2 * self.theta)))

    @property
    def alpha(self) -> Floats:
        """(T,) exp(-2 theta delta)."""
        return np.exp(-2 * self.theta * self.delta)

    @property
    def beta(self) -> Floats:
        """(T,) 1 - alpha."""
        return -np.expm1(-2 * self.theta * self.delta)

    @property
    def alpha_bar(self) -> Floats:
        """(T,) products of alpha."""
        return np.exp(-2 * self.theta * np.cumsum(self.delta))

    @property
    def signal(self) -> Floats:
        """(T,) factor of x_0 - x* in x_t: sqrt(alpha_bar)."""
        return np.exp(-self.theta * np.cumsum(self.delta))

    @property
    def spread(self) -> Floats:
        """(T,) standard deviation of x_t around its mean: s sqrt(1 - alpha_bar)."""
        return self.scale * np.sqrt(-np.expm1(-2 * self.theta * np.cumsum(self.delta)))

    @property
    def removed(self) -> Floats:
        """(T,) factor of the noise in a step back: beta s / sqrt(1 - alpha_bar)."""
        return self.scale**2 * self.beta / self.spread

    @property
    def loss_weight(self) -> Floats:
        """(T,) weight of |eps - eps_theta|^2 in the bound: beta / (2 alpha (1 - alpha_bar)); 0 at t = 0."""
        left = -np.expm1(-2 * self.theta * np.cumsum(self.delta))
        weight = self.beta / (2 * self.alpha * left)
        weight[0] = 0.0
        return weight

    @property
    def bridge(self) -> Floats:
        """(T, 3) coefficients of x_0 - x*, of x_t - x* and the variance of q(x_{t-1} | x_t, x_0)."""
        before = np.concatenate(([0.0], np.cumsum(self.delta)[:-1]))
        left, left_before = (-np.expm1(-2 * self.theta * d) for d in (np.cumsum(self.delta), before))
        of_x0 = np.exp(-self.theta * before) * self.beta / left
        of_x = np.sqrt(self.alpha) * left_before / left
        return np.stack([of_x0, of_x, self.scale**2 * self.beta * left_before / left], axis=1)
