"""Embeddings of the time and of the class label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of `t` at `dim / 2` geometrically spaced frequencies (Vaswani et al. 2017).

    Args:
        t: times, (B,), any real dtype; computed in float32.
        dim: width of the result, even.
        max_period: the longest period, in units of `t`.

    Returns:
        (B, dim) float32: sines first, then cosines.
    """
    half = dim // 2
    exponent = torch.arange(half, device=t.device, dtype=torch.float32) / max(half - 1, 1)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponent)[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class TimeEmbedding(nn.Module):
    """Time to feature vector: sinusoidal code, then a two-layer perceptron.

    Args:
        width: width of the sinusoidal code, even.
        out: width of the result.
        scale: factor on the time before it is coded (1000 for a continuous time in [0, 1]).
    """

    def __init__(self, width: int, out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.expand = nn.Linear(width, out)
        self.project = nn.Linear(out, out)

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,) to features (B, out)."""
        code = sinusoidal(t * self.scale if self.scale != 1.0 else t, self.width)
        return self.project(nn.functional.silu(self.expand(code.to(self.expand.weight.dtype))))


class ClassEmbedding(nn.Module):
    """One vector per class and one for "no class", which has the index `num_classes`.

    Args:
        num_classes: number of classes, at least 1.
        out: width of the result.
    """

    def __init__(self, num_classes: int, out: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, out)

    def forward(self, labels: Tensor | None, batch: int) -> Tensor:
        """Labels (B,) int64, or None for the null class everywhere, to features (B, out) or (1, out)."""
        if labels is None:
            return self.table.weight[self.num_classes :].expand(batch, -1)
        return self.table(labels)
