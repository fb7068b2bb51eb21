"""The UNet of the DDPM family (Ho et al. 2020; Nichol & Dhariwal 2021), built from this package's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.attention import Attention
from fastdiff.nn.blocks import Downsample, ResBlock, Stage, Upsample, zeroed
from fastdiff.nn.embeddings import ClassEmbedding, TimeEmbedding
from fastdiff.nn.norms import make_norm
from fastdiff.nn.unet_config import check_config


class UNet(nn.Module):
    """Network (x, t, labels) -> m with skip connections between levels of halving resolution.

    Args:
        in_channels: channels of x (those of a self-conditioning input are added to them).
        out_channels: channels of the result; None: as many as `in_channels`.
        channels: width of the first level.
        channel_mults: width of level i is `channels * channel_mults[i]`; each level halves the one before it.
        blocks: residual blocks per level on the way down (one more on the way up).
        attention_levels: the levels (0: full resolution) whose blocks are followed by attention.
        middle_attention: attention between the two blocks of the lowest level.
        heads: heads of an attention, used when `head_dim` is None.
        head_dim: width of a head; the number of heads is then width / head_dim.
        norm: "group" or "rms" (over channels).
        groups: groups of a group norm.
        time_embedding: "scale_shift" or "additive".
        time_scale: factor on t before it is embedded (1 for integer times 0...T-1).
        num_classes: number of class labels; 0: no labels. The null class has the index `num_classes`.
        self_condition: expects the previous estimate of x0 (zeros when not given) beside x.
        dropout: in the residual blocks, [0, 1).
        patch: squares of patch x patch pixels become channels before the first level.
        size_policy: for heights or widths that cannot be halved: "refuse" (ValueError) or "pad" (by
            repeating the border to the next size that can, cropping the result).

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        channels: int = 64,
        channel_mults: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (),
        middle_attention: bool = True,
        heads: int = 4,
        head_dim: int | None = None,
        norm: str = "group",
        groups: int = 32,
        time_embedding: str = "scale_shift",
        time_scale: float = 1.0,
        num_classes: int = 0,
        self_condition: bool = False,
        dropout: float = 0.0,
        patch: int = 1,
        size_policy: str = "refuse",
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.config: dict[str, Any] = check_config(config)
        self._build(**self.config)

    def _build(self, **c: Any) -> None:
        widths = [c["channels"] * m for m in c["channel_mults"]]
        emb = 4 * c["channels"]
        area = c["patch"] ** 2
        self.factor = c["patch"] * 2 ** (len(widths) - 1)
        self.time = TimeEmbedding(c["channels"], emb, c["time_scale"])
        self.classes = ClassEmbedding(c["num_classes"], emb) if c["num_classes"] else None
        stem_in = c["in_channels"] * (2 if c["self_condition"] else 1) * area
        self.stem = nn.Conv2d(stem_in, widths[0], 3, padding=1)
        skips = self._build_down(widths, emb, c)
        self.mid1 = self._block(widths[-1], widths[-1], emb, c)
        self.mid_attention = self._attention(widths[-1], c) if c["middle_attention"] else nn.Identity()
        self.mid2 = self._block(widths[-1], widths[-1], emb, c)
        self._build_up(widths, skips, emb, c)
        self.out_norm = make_norm(c["norm"], widths[0], c["groups"])
        self.out_conv = zeroed(nn.Conv2d(widths[0], c["out_channels"] * area, 3, padding=1))

    def _build_down(self, widths: list[int], emb: int, c: dict[str, Any]) -> list[int]:
        """Build the way down; returns the widths of the kept feature maps, in order."""
        self.down = nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, wide in enumerate(widths):
            if level:
                self.down.append(Downsample(width, width))
                skips.append(width)
            for _ in range(c["blocks"]):
                self.down.append(self._stage(width, wide, level, emb, c))
                width = wide
                skips.append(width)
        return skips

    def _build_up(self, widths: list[int], skips: list[int], emb: int, c: dict[str, Any]) -> None:
        self.up = nn.ModuleList()
        width, skips = widths[-1], list(skips)
        for level in reversed(range(len(widths))):
            for _ in range(c["blocks"] + 1):
                self.up.append(self._stage(width + skips.pop(), widths[level], level, emb, c))
                width = widths[level]
            if level:
                width = widths[level - 1]
                self.up.append(Upsample(widths[level], width))

    def _stage(self, width: int, wide: int, level: int, emb: int, c: dict[str, Any]) -> Stage:
        attention = [self._attention(wide, c)] if level in c["attention_levels"] else []
        return Stage([self._block(width, wide, emb, c), *attention])

    @staticmethod
    def _block(width: int, wide: int, emb: int, c: dict[str, Any]) -> ResBlock:
        options = {k: c[k] for k in ("norm", "groups", "time_embedding", "dropout")}
        return ResBlock(width, wide, emb, **options)

    @staticmethod
    def _attention(width: int, c: dict[str, Any]) -> Attention:
        heads = c["heads"] if c["head_dim"] is None else max(width // c["head_dim"], 1)
        return Attention(width, heads, c["head_dim"], c["norm"], c["groups"])

    def forward(
        self, x: Tensor, t: Tensor, labels: Tensor | None = None, x_self_cond: Tensor | None = None
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W) floating.
            t: (B,) int64 or float32.
            labels: (B,) int64 in [0, num_classes], num_classes meaning "no class"; None: no class anywhere.
            x_self_cond: (B, C, H, W) previous estimate of x0, for a network with `self_condition`.

        Returns:
            (B, out_channels, H, W).

        Raises:
            ValueError: for a shape, or an input, that the network was not built for.
        """
        height, width = x.shape[-2:]
        x = self._entry(x, labels, x_self_cond)
        emb = self.time(t)
        if self.classes is not None:
            emb = emb + self.classes(labels, x.shape[0])
        h = self._levels(self.stem(x), functional.silu(emb))
        out = self.out_conv(self.out_norm(h))
        if self.config["patch"] > 1:
            out = functional.pixel_shuffle(out, self.config["patch"])
        return out[..., :height, :width]

    def _levels(self, h: Tensor, emb: Tensor) -> Tensor:
        """Down, middle and up: (B, C, h, w) to (B, C, h, w)."""
        kept = [h]
        for part in self.down:
            h = part(h) if isinstance(part, Downsample) else part(h, emb)
            kept.append(h)
        h = self.mid2(self.mid_attention(self.mid1(h, emb)), emb)
        for part in self.up:
            h = part(h) if isinstance(part, Upsample) else part(torch.cat((h, kept.pop()), 1), emb)
        return h

    def _entry(self, x: Tensor, labels: Tensor | None, x_self_cond: Tensor | None) -> Tensor:
        """Checked, self-conditioned, padded and unshuffled input of the stem."""
        c = self.config
        if x.ndim != 4 or x.shape[1] != c["in_channels"]:
            raise ValueError(f"UNet: x must be (B, {c['in_channels']}, H, W), got {tuple(x.shape)}")
        if labels is not None and self.classes is None:
            raise ValueError("UNet: labels must be None for a network without classes (num_classes=0)")
        if c["self_condition"]:
            x = torch.cat((x, torch.zeros_like(x) if x_self_cond is None else x_self_cond), dim=1)
        elif x_self_cond is not None:
            raise ValueError("UNet: x_self_cond must be None for a network without self_condition")
        x = self._fit(x)
        return functional.pixel_unshuffle(x, c["patch"]) if c["patch"] > 1 else x

    def _fit(self, x: Tensor) -> Tensor:
        """x, padded below and to the right where `size_policy` is "pad" and the depth cannot halve its size."""
        height, width = x.shape[-2:]
        more = (-height % self.factor, -width % self.factor)
        if more == (0, 0):
            return x
        if self.config["size_policy"] == "pad":
            return functional.pad(x, (0, more[1], 0, more[0]), mode="replicate")
        raise ValueError(
            f"UNet: height and width must be multiples of {self.factor} for this depth, got {height} x {width}; "
            "choose such a size or build the network with size_policy='pad'"
        )
