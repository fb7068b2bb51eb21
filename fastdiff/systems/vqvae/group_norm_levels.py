"""Encoder and decoder of one level out of group norm, SiLU and 3x3 convolutions, with attention where it is wanted.

Source: the first published version of the hierarchical VQ-VAE (Dirmeier 2024); its encoders' last convolution starts at
zero, which lets all rows begin as one and the same code, and does not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastdiff.nn import Attention, Downsample, GroupNormSiLU, Upsample
from fastdiff.nn.blocks import zeroed

#: flax's default, with which the original was trained.
_EPS = 1e-6


class Residual(nn.Module):
    """norm-SiLU-conv3-norm-SiLU-dropout-conv3, plus the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = GroupNormSiLU(in_channels, groups, eps=_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNormSiLU(out_channels, groups, eps=_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, H, W) to (B, out, H, W)."""
        h = self.conv2(self.dropout(self.norm2(self.conv1(self.norm1(x)))))
        return self.skip(x) + h


def _blocks(
    entering: int, width: int, layers: int, groups: int, dropout: float, heads: int
) -> list[nn.Module]:
    """`layers` residual blocks, each followed by attention with `heads` heads when there are any."""
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts.append(Residual(entering, width, groups, dropout))
        parts += [Attention(width, heads, groups=groups)] if heads else []
        entering = width
    return parts


def encoder(
    entering: int,
    leaving: int,
    width: int,
    mults: Sequence[int],
    *,
    layers: int,
    groups: int,
    dropout: float,
    heads: int,
) -> nn.Sequential:
    """(B, entering, H, W) to (B, leaving, H / 2^n, W / 2^n), n = len(mults) - 1; attention at the lowest size."""
    parts: list[nn.Module] = [nn.Conv2d(entering, width * mults[0], 3, padding=1)]
    now = width * mults[0]
    for i, mult in enumerate(mults):
        last = i == len(mults) - 1
        parts += _blocks(now, width * mult, layers, groups, dropout, heads if last else 0)
        now = width * mult
        parts += [] if last else [Downsample(now, now)]
    return nn.Sequential(*parts, nn.Conv2d(now, leaving, 3, padding=1))


def decoder(
    entering: int,
    leaving: int,
    width: int,
    mults: Sequence[int],
    *,
    layers: int,
    groups: int,
    dropout: float,
    heads: int,
) -> nn.Sequential:
    """(B, entering, h, w) to (B, leaving, 2^n h, 2^n w); the last convolution starts at zero."""
    now = width * mults[-1]
    parts: list[nn.Module] = [nn.Conv2d(entering, now, 3, padding=1)]
    for i, mult in enumerate(reversed(mults)):
        parts += [Upsample(now, now)] if i else []
        parts += _blocks(now, width * mult, layers, groups, dropout, 0 if i else heads)
        now = width * mult
    return nn.Sequential(*parts, zeroed(nn.Conv2d(now, leaving, 3, padding=1)))
