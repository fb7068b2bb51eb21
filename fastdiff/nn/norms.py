"""Normalisation, optional scale and shift, SiLU: the seam every block of the network passes through.

Each is one operation of `fastdiff.ops`, which computes in float32 and gives back the dtype of its input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdiff import ops


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
        return ops.group_norm_silu(
            x,
            self.groups,
            self.weight,
            self.bias,
            scale=scale,
            shift=shift,
            eps=self.eps,
            activate=self.activate,
        )


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
        self.eps, self.activate = eps, activate
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), scale and shift (B, C) or None, to (B, C, H, W)."""
        return ops.rms_norm_silu(
            x, self.weight, scale=scale, shift=shift, eps=self.eps, activate=self.activate
        )


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
