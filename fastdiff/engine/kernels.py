"""The operations that the engine puts into a graph, each a function of tensors with a plain meaning.

A graph with these calls can be run at any stage of the pipeline; the tests do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastdiff.ops import group_norm_silu, rms_norm_silu


def norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> Tensor:
    """Group norm, or RMS norm over channels where groups is 0, then * (1 + scale) + shift, then SiLU.

    Args:
        x: (B, C, ...).
        groups: of the group norm; 0 for x / max(|x|, eps) * sqrt(C) * weight.
        weight: (C,) or None.
        bias: (C,) or None.
        scale: (B, C) or None.
        shift: (B, C) or None.
        eps: added to the variance, or the least norm.
        activate: apply SiLU.

    Returns:
        (B, C, ...).
    """
    if groups:
        return group_norm_silu(x, groups, weight, bias, scale=scale, shift=shift, eps=eps, activate=activate)
    return rms_norm_silu(x, weight, scale=scale, shift=shift, eps=eps, activate=activate)


def fresh(x: Tensor, size: list[int], stride: list[int]) -> Tensor:
    """A copy of x in memory of its own, with these strides."""
    return torch.empty_strided(size, stride, dtype=x.dtype, device=x.device).copy_(x)
