"""The equality that every network must keep: float32, error at most 1e-4 of the largest value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, with no weight left at zero, so that no branch is switched off."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return net.eval()


def tensor_of(result: Any) -> Tensor:
    """The first tensor of what a network returns."""
    return result if isinstance(result, Tensor) else result[0] if isinstance(result, tuple) else result.sample


def assert_same_values(got: Any, wanted: Any) -> None:
    """Same shape and dtype, values within the tolerance."""
    got, wanted = tensor_of(got), tensor_of(wanted)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    error = (got - wanted).abs().max() / wanted.abs().max()
    assert error <= TOLERANCE, float(error)


def assert_equal(got: Any, wanted: Any) -> None:
    """Same shape, strides and dtype, values within the tolerance."""
    assert_same_values(got, wanted)
    assert tensor_of(got).stride() == tensor_of(wanted).stride()
