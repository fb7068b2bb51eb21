"""The UNet that the published bridges use over latents, with the names of its checkpoints.

Multiples are cumulative: width 128 with multiples (1, 2, 4) has levels of 128, 256 and 1024 channels. Attention has one
head as wide as its level. Names and shapes of the parameters are those of the original's `eps_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff import ops
from fastdiff.nn import Downsample, GroupNormSiLU, sinusoidal


def _groups(channels: int) -> int:
    """32, and in narrow networks four channels a group: a norm of single channels would take the time out again."""
    return min(32, max(1, channels // 4))


class PriorTime(nn.Module):
    """Times (B,) to features (B, out): sinusoidal code of out / 4 numbers, Linear, SiLU, Linear."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.width = out // 4
        self.lin1, self.lin2 = nn.Linear(self.width, out), nn.Linear(out, out)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) to (B, out)."""
        code = sinusoidal(t, self.width).to(self.lin1.weight.dtype)
        return self.lin2(functional.silu(self.lin1(code)))


class PriorResidual(nn.Module):
    """norm-SiLU-conv3, + Linear(time), norm-SiLU-conv3, plus the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (GroupNormSiLU(n, _groups(n)) for n in (in_channels, out_channels))
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.time_emb = nn.Linear(time, out_channels)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, in, H, W) and time (B, features) to (B, out, H, W)."""
        h = self.conv1(self.norm1(x)) + self.time_emb(time)[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.norm2(h))


class PriorAttention(nn.Module):
    """x + output(softmax(q k^T / sqrt(C)) v), q, k, v from the normalised x.

    With `compat`, as published: the norm is not applied, and the softmax runs over the queries instead of the keys.
    """

    def __init__(self, channels: int, compat: bool = False) -> None:
        super().__init__()
        self.compat = compat
        self.norm = GroupNormSiLU(channels, _groups(channels), activate=False)
        self.projection = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        rows = (x if self.compat else self.norm(x)).flatten(2).transpose(1, 2)
        q, k, v = (part.unsqueeze(1) for part in self.projection(rows).chunk(3, dim=2))
        if self.compat:
            scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
            found = torch.matmul(scores.softmax(dim=-2), v)
        else:
            found = ops.attention(q, k, v)
        return x + self.output(found.squeeze(1)).transpose(1, 2).reshape(x.shape)


class PriorStage(nn.Module):
    """A residual block, then attention where there is any."""

    def __init__(self, in_channels: int, out_channels: int, time: int, attn: bool, compat: bool) -> None:
        super().__init__()
        self.res = PriorResidual(in_channels, out_channels, time)
        self.attn = PriorAttention(out_channels, compat) if attn else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        return self.attn(self.res(x, time))


class PriorMiddle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, time: int, compat: bool) -> None:
        super().__init__()
        self.res1, self.res2 = (PriorResidual(channels, channels, time) for _ in range(2))
        self.attn = PriorAttention(channels, compat)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return self.res2(self.attn(self.res1(x, time)), time)


class PriorUpsample(nn.Module):
    """Double height and width by a transposed convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        return self.conv(x)


class PriorUNet(nn.Module):
    """Noise of latents: (x, t) -> eps.

    Args:
        image_channels: D, channels of the latents.
        n_channels: width of the first level.
        ch_mults: factor from each level's width to the next one's.
        is_attn: which levels have attention.
        n_blocks: residual blocks per level on the way down (one more on the way up).
        compat: attention as published, see `PriorAttention`; for weights of the original.

    Raises:
        ValueError: for sizes below 1 or lists of different lengths.
    """

    def __init__(
        self,
        image_channels: int = 32,
        n_channels: int = 128,
        ch_mults: Sequence[int] = (1, 2, 4),
        is_attn: Sequence[bool] = (False, False, True),
        n_blocks: int = 2,
        compat: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            **{"image_channels": image_channels, "n_channels": n_channels, "n_blocks": n_blocks},
            **{"ch_mults": list(ch_mults), "is_attn": list(is_attn), "compat": compat},
        }
        if not 0 < len(ch_mults) == len(is_attn) or min(image_channels, n_channels, n_blocks, *ch_mults) < 1:
            raise ValueError(
                f"PriorUNet: sizes must be >= 1, one at least, and ch_mults as long as is_attn, got {self.config}"
            )
        self.reduction = 2 ** (len(ch_mults) - 1)
        self.time_emb = PriorTime(4 * n_channels)
        self.image_proj = nn.Conv2d(image_channels, n_channels, 3, padding=1)
        self._build(n_channels, list(ch_mults), list(is_attn), n_blocks, compat)
        self.norm = GroupNormSiLU(n_channels, 8)
        self.final = nn.Conv2d(n_channels, image_channels, 3, padding=1)

    def _build(self, width: int, mults: list[int], attn: list[bool], blocks: int, compat: bool) -> None:
        time, wide = 4 * width, width
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, mult in enumerate(mults):
            for block in range(blocks):
                entering, wide = wide, wide * (mult if block == 0 else 1)
                self.down.append(PriorStage(entering, wide, time, attn[level], compat))
            if level + 1 < len(mults):
                self.down.append(Downsample(wide, wide))
        self.middle = PriorMiddle(wide, time, compat)
        for level in reversed(range(len(mults))):
            for _ in range(blocks):
                self.up.append(PriorStage(2 * wide, wide, time, attn[level], compat))
            narrow = wide // mults[level]
            self.up.append(PriorStage(wide + narrow, narrow, time, attn[level], compat))
            wide = narrow
            if level:
                self.up.append(PriorUpsample(wide))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Latents (B, D, h, w) at times (B,) to noise (B, D, h, w); h and w halve as often as there are levels.

        Raises:
            ValueError: for another shape.
        """
        channels, factor = self.config["image_channels"], self.reduction
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % factor or x.shape[3] % factor:
            want = f"(B, {channels}, h, w), h and w multiples of {factor}"
            raise ValueError(f"PriorUNet: x must be {want}, got {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"PriorUNet: t must be ({len(x)},), got {tuple(t.shape)}")
        time, h = self.time_emb(t), self.image_proj(x)
        kept = [h]
        for part in self.down:
            h = part(h) if isinstance(part, Downsample) else part(h, time)
            kept.append(h)
        h = self.middle(h, time)
        for part in self.up:
            h = part(h) if isinstance(part, PriorUpsample) else part(torch.cat((h, kept.pop()), 1), time)
        return self.final(self.norm(h))
