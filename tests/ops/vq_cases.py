"""What the tests of the nearest code share."""

from __future__ import annotations

import numpy as np
import torch

EVERYTHING = {"return_quantised": True, "return_distance": True, "return_counts": True}


def distances(z: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """All squared distances in float64, without cancellation."""
    rows = z.double().reshape(-1, 1, z.shape[-1])
    return (rows - codebook.double()).square().sum(2)


def assert_nearest(index: torch.Tensor, z: torch.Tensor, codebook: torch.Tensor) -> None:
    """The float64 argmin, except where the two distances are closer than float32 can tell apart."""
    exact = distances(z, codebook)
    chosen = exact.gather(1, index.reshape(-1, 1)).squeeze(1)
    norms = z.double().reshape(-1, z.shape[-1]).square().sum(1) + codebook.double().square().sum(1).max()
    rounding = torch.finfo(torch.float32).eps * max(2.0, z.shape[-1] ** 0.5) * norms
    assert (chosen - exact.amin(1) <= rounding).all()


def drawn(generator: np.random.Generator, shape: tuple[int, ...], layout: str) -> torch.Tensor:
    values = torch.from_numpy(generator.normal(size=shape)).float()
    if layout == "channels first":
        return values.movedim(-1, 1).contiguous().movedim(1, -1) if values.dim() > 1 else values
    if layout == "sliced":
        return torch.cat([values, values, values], dim=-1)[..., shape[-1] : 2 * shape[-1]]
    return values
