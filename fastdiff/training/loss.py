"""The weighted denoising loss of one batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fastdiff.ops import add_noise
from fastdiff.prediction import loss_weight, target, x0_coefficients
from fastdiff.schedule import Schedule
from fastdiff.training.batches import Batch
from fastdiff.training.config import TrainConfig


class DenoisingLoss:
    """Mean over the batch of weight(t) * |m - target|^2.

    Args:
        schedule: gives alpha, sigma and the signal-to-noise ratio of a time.
        config: prediction, min-SNR cap, offset noise.
        device: where batches are sent.
    """

    def __init__(self, schedule: Schedule, config: TrainConfig, device: torch.device) -> None:
        self.schedule, self.config, self.device = schedule, config, device
        self.gamma = config.min_snr_gamma or None

    def __call__(self, net: nn.Module, batch: Batch) -> Tensor:
        """The loss, a float32 scalar with gradient."""
        alpha, sigma, weight = self._coefficients(batch.t)
        x0, t = batch.x0.to(self.device), batch.t.to(self.device)
        labels = None if batch.labels is None else batch.labels.to(self.device)
        seeds, offset = batch.seeds.to(self.device), self.config.offset_noise
        x_t, eps = add_noise(x0, alpha, sigma, seeds=seeds, offset=offset, return_noise=True)
        extra = {} if labels is None else {"labels": labels}
        if batch.self_condition:
            extra["x_self_cond"] = self._estimate(net, x_t, t, extra, batch)
        wanted = target(self.config.prediction, x0, eps, alpha, sigma)
        m = net(x_t.contiguous(memory_format=torch.channels_last), t, **extra)
        return (weight * (m.float() - wanted).square().mean(dim=(1, 2, 3))).mean()

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma and the loss weight, (b,) float32 each, from the float64 schedule."""
        times = t.numpy()
        alpha, sigma = self.schedule.alpha(times), self.schedule.sigma(times)
        weight = np.ones_like(alpha)
        if self.config.weighting == "min_snr":
            weight = loss_weight(self.config.prediction, (alpha / sigma) ** 2, self.gamma)
        return tuple(torch.from_numpy(a).float().to(self.device) for a in (alpha, sigma, weight))  # type: ignore

    @torch.no_grad()
    def _estimate(
        self, net: nn.Module, x_t: Tensor, t: Tensor, extra: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        """The network's own x0, clamped to the data range, without gradient."""
        alpha, sigma = self.schedule.alpha(batch.t.numpy()), self.schedule.sigma(batch.t.numpy())
        pairs = [x0_coefficients(self.config.prediction, float(a), float(s)) for a, s in zip(alpha, sigma)]
        u = torch.tensor(pairs, dtype=torch.float32, device=self.device)[:, :, None, None, None]
        return (u[:, 0] * x_t + u[:, 1] * net(x_t, t, **extra).float()).clamp(-1, 1)
