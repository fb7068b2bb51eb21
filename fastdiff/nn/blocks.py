"""The blocks a UNet is made of: residual block, halving, doubling."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.norms import make_norm

TIME_EMBEDDINGS = ("scale_shift", "additive")


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution with weights and bias set to zero."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ResBlock(nn.Module):
    """norm-SiLU-conv3, the embedding, norm-SiLU-dropout-conv3, plus the (projected) input.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        embedding: width of the embedding of time and class.
        norm: "group" or "rms".
        groups: groups of a group norm.
        time_embedding: "scale_shift" modulates the second norm, "additive" adds a bias before it.
        dropout: probability in [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        *,
        norm: str = "group",
        groups: int = 32,
        time_embedding: str = "scale_shift",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.modulated = time_embedding == "scale_shift"
        self.norm1 = make_norm(norm, in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embedding, out_channels * (2 if self.modulated else 1))
        self.norm2 = make_norm(norm, out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, in, H, W), emb (B, embedding) already activated, to (B, out, H, W)."""
        h = self.conv1(self.norm1(x))
        code = self.embed(emb)
        h = self.norm2(h, *code.chunk(2, dim=1)) if self.modulated else self.norm2(h + code[:, :, None, None])
        return self.skip(x) + self.conv2(self.dropout(h))


class Stage(nn.ModuleList):
    """A residual block, then, where there is one, an attention."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, in, H, W), emb (B, embedding), to (B, out, H, W)."""
        x = self[0](x, emb)
        for attention in list(self)[1:]:
            x = attention(x)
        return x


class Downsample(nn.Module):
    """Halve height and width by a convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, 2H, 2W)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
