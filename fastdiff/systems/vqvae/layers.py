"""Encoder and decoder of the VQ-VAE under the OU bridges, with the names its checkpoints have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """relu(BN-conv3(relu(BN-conv1(x))) + shortcut(x)); the shortcut is BN-conv1 where the shape changes, else x."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return functional.relu(self.block(x) + self.shortcut(x))


def encoder(channels: int, widths: list[int], strides: list[int]) -> nn.Sequential:
    """Blocks one after another: (B, channels, H, W) to (B, widths[-1], H / prod(strides), W / prod(strides))."""
    entering = [channels, *widths[:-1]]
    return nn.Sequential(*[Block(n, wide, stride) for n, wide, stride in zip(entering, widths, strides)])


def decoder(widths: list[int], channels: int, strides: list[int]) -> nn.Sequential:
    """Transposed convolutions from widths[0] to `channels`, BN and ReLU between them, nothing after the last."""
    leaving = [*widths[1:], channels]
    parts: list[nn.Module] = []
    for entering, wide, stride in zip(widths, leaving, strides):
        parts += [
            nn.ConvTranspose2d(entering, wide, 3, stride, padding=1, output_padding=stride - 1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts[:-2])
