"""Exact networks of known data: yardsticks that every solver can be measured with.

When each pixel is drawn from a Gaussian mixture, the best possible network has a closed form, and for one Gaussian
so has the path that a noisy state takes to the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastdiff.prediction import PLAIN, check_prediction, sigma_data, target
from fastdiff.schedule import Schedule


class MixtureNetwork:
    """The exact network (x, t) -> m for independent pixels ~ sum_k w_k N(mean_k, std_k^2). Runs on the CPU.

    Args:
        schedule: Noise schedule.
        prediction: What it returns, see `fastdiff.prediction`; an "edm" network takes c_in x and c_noise.
        means: (K,) means of the components.
        stds: (K,) standard deviations, >= 0; 0 is a point.
        weights: (K,) weights, > 0; None for equal ones.
    """

    def __init__(
        self,
        schedule: Schedule,
        prediction: str,
        means: Sequence[float] = (0.0,),
        stds: Sequence[float] = (1.0,),
        weights: Sequence[float] | None = None,
    ) -> None:
        self.schedule, self.prediction = schedule, check_prediction(prediction, "MixtureNetwork")
        parts = np.ones(len(means)) if weights is None else np.asarray(weights, dtype=np.float64)
        if not (len(means) == len(stds) == len(parts) >= 1) or min(stds) < 0 or parts.min() <= 0:
            raise ValueError(
                "MixtureNetwork: means, stds >= 0 and weights > 0 must be of one length, got others"
            )
        self.means, self.stds = (torch.tensor(list(values), dtype=torch.float64) for values in (means, stds))
        self.weights = torch.tensor(parts / parts.sum())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """m of shape (B, ...) for states x at times t (B,)."""
        alpha, sigma = (
            torch.from_numpy(np.asarray(c)).reshape(-1, *(1,) * (x.ndim - 1))
            for c in self._levels(t.double().numpy())
        )
        state = x.double() * self._unscaled(alpha, sigma)
        x0 = self.denoise(state, alpha, sigma)
        return target(self.prediction, x0, (state - alpha * x0) / sigma, alpha, sigma).to(x.dtype)

    def denoise(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x0 | x] elementwise, float64."""
        a, s = (torch.as_tensor(c, dtype=torch.float64).unsqueeze(-1) for c in (alpha, sigma))
        variance = a**2 * self.stds**2 + s**2
        distance = x.unsqueeze(-1) - a * self.means
        logits = self.weights.log() - 0.5 * (distance**2 / variance + variance.log())
        means = self.means + a * self.stds**2 / variance * distance
        return (logits.softmax(-1) * means).sum(-1)

    def flow(self, x: Tensor, t: float, t_next: float = -1.0) -> Tensor:
        """Where the probability flow takes states x from time t to t_next; for one component alone."""
        if len(self.means) != 1:
            raise ValueError(f"MixtureNetwork: flow must be asked of one component, got {len(self.means)}")
        mean, std = float(self.means[0]), float(self.stds[0])
        alpha, sigma = self._alpha(np.array([t, t_next])), self._sigma(np.array([t, t_next]))
        spread = np.sqrt(alpha**2 * std**2 + sigma**2)
        return alpha[1] * mean + float(spread[1] / spread[0]) * (x.double() - alpha[0] * mean)

    def _levels(self, told: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha, sigma) of what the network is told."""
        if self.prediction in PLAIN:
            return self._alpha(told), self._sigma(told)
        return self.schedule.split(-8 * told)

    def _unscaled(self, alpha: Tensor, sigma: Tensor) -> Tensor | float:
        """Factor from the network's input to the state."""
        if self.prediction in PLAIN:
            return 1.0
        return (sigma**2 + (sigma_data(self.prediction) * alpha) ** 2) ** 0.5

    def _alpha(self, times: np.ndarray) -> np.ndarray:
        return self.schedule.alpha(times)

    def _sigma(self, times: np.ndarray) -> np.ndarray:
        return self.schedule.sigma(times)
