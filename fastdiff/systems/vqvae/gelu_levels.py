"""Encoder and decoder of one level out of GELU and convolutions: ConvNeXt blocks, or plain residual ones.

Source: the later version of the hierarchical VQ-VAE (Dirmeier 2024); ConvNeXt is by Liu et al. 2022. The GELU is the
one by tanh, the layer norm has eps = 1e-6, and every weight starts uniform with variance 0.1 / fan-in.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

GELU_BLOCKS = ("convnext", "resnet")


class _GELU(nn.GELU):
    def __init__(self) -> None:
        super().__init__(approximate="tanh")


class ConvNeXt(nn.Module):
    """x + linear(GELU(linear(layer norm(depthwise 7x7(GELU(x)))))), the inner width four times the outer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.gelu = _GELU()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, C, H, W)."""
        h = self.norm(self.spatial(self.gelu(x)).permute(0, 2, 3, 1))
        return x + self.narrow(self.gelu(self.widen(h))).permute(0, 3, 1, 2)


class Plain(nn.Module):
    """x + conv1(GELU(conv3(GELU(x)))), the inner width twice the outer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)
        self.gelu = _GELU()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, C, H, W)."""
        return x + self.narrow(self.gelu(self.spatial(self.gelu(x))))


class Conv4(nn.Conv2d):
    """A 4x4 convolution that keeps the size: one row and column of zeros before, two after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, H, W) to (B, out, H, W)."""
        return super().forward(functional.pad(x, (1, 2, 1, 2)))


def _blocks(width: int, layers: int, block: str) -> list[nn.Module]:
    kind = ConvNeXt if block == "convnext" else Plain
    return [*(kind(width) for _ in range(layers)), _GELU()]


def encoder(entering: int, width: int, *, layers: int, block: str) -> nn.Sequential:
    """(B, entering, H, W) to (B, width, H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(entering, width, 4, stride=2, padding=1),
        _GELU(),
        Conv4(width, width),
        _GELU(),
        nn.Conv2d(width, width, 3, padding=1),
        *_blocks(width, layers, block),
    )


def decoder(entering: int, leaving: int, width: int, *, layers: int, block: str) -> nn.Sequential:
    """(B, entering, h, w) to (B, leaving, 2h, 2w)."""
    return nn.Sequential(
        nn.Conv2d(entering, width, 3, padding=1),
        *_blocks(width, layers, block),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        _GELU(),
        Conv4(width, leaving),
    )


def doubling(channels: int, times: int) -> nn.Sequential:
    """Transposed convolutions (B, channels, h, w) to (B, channels, 2^times h, 2^times w)."""
    return nn.Sequential(
        *[nn.ConvTranspose2d(channels, channels, 3, 2, padding=1, output_padding=1) for _ in range(times)]
    )


def start_small(net: nn.Module) -> None:
    """Every weight of a convolution or linear layer uniform with variance 0.1 / fan-in, every bias 0."""
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            inputs = part.in_features if isinstance(part, nn.Linear) else _fan_in(part)
            bound = math.sqrt(0.3 / inputs)
            nn.init.uniform_(part.weight, -bound, bound)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]


def _fan_in(conv: nn.Conv2d | nn.ConvTranspose2d) -> int:
    return conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
