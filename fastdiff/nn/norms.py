"""Normalisation, optional scale and shift, SiLU: the seam every block of the network passes through.

They are modules of their own so that one fused operation can later take their place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def _modulate(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """x * (1 + scale) + shift with per-sample, per-channel factors (B, C)."""
    if scale is None or shift is None:
        return x
    return torch.addcmul(shift[:, :, None, None], x, 1 + scale[:, :, None, None])


class GroupNormSiLU(nn.Module):
    """Group norm -> optional x * (1 + scale) + shift -> SiLU.

    Args:
        channels: number of channels C.
        groups: wanted number of groups; the largest divisor of C not above it is taken.
        eps: added to the variance.
        activate: apply SiLU at the end.
    """

    def __init__(self, channels: int, groups: int = 32, eps: float = 1e-5, activate: bool = True) -> None:
        super().__init__()
        self.groups = max(g for g in range(1, min(groups, channels) + 1) if channels % g == 0)
        self.eps, self.activate = eps, activate
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), scale and shift (B, C) or None, to (B, C, H, W)."""
        x = functional.group_norm(x, self.groups, self.weight, self.bias, self.eps)
        x = _modulate(x, scale, shift)
        return functional.silu(x) if self.activate else x


class RMSNormSiLU(nn.Module):
    """Channel RMS norm x / max(|x|_C, eps) * sqrt(C) * g -> optional scale and shift -> SiLU.

    The norm is clamped from below, `eps` is not added to it.

    Args:
        channels: number of channels C.
        eps: lower bound of the norm over channels.
        activate: apply SiLU at the end.
    """

    def __init__(self, channels: int, eps: float = 1e-12, activate: bool = True) -> None:
        super().__init__()
        self.eps, self.activate, self.factor = eps, activate, math.sqrt(channels)
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), scale and shift (B, C) or None, to (B, C, H, W)."""
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(self.eps)
        x = x * norm.reciprocal().to(x.dtype)
        gain = (self.weight * self.factor)[None, :]
        if scale is None or shift is None:
            x = x * gain[:, :, None, None].to(x.dtype)
        else:
            x = torch.addcmul(shift[:, :, None, None], x, (gain * (1 + scale))[:, :, None, None].to(x.dtype))
        return functional.silu(x) if self.activate else x


def make_norm(kind: str, channels: int, groups: int = 32, activate: bool = True) -> nn.Module:
    """The norm module called `kind`: "group" or "rms".

    Raises:
        ValueError: for another name.
    """
    if kind == "group":
        return GroupNormSiLU(channels, groups, activate=activate)
    if kind == "rms":
        return RMSNormSiLU(channels, activate=activate)
    raise ValueError(f"UNet: norm must be one of 'group', 'rms', got {kind!r}")
