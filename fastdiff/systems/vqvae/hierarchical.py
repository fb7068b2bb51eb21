"""A VQ-VAE with several maps of codes, each half the size of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.codebook import Quantised, Quantiser, make_codebook
from fastdiff.systems.vqvae import gelu_levels, group_norm_levels
from fastdiff.systems.vqvae.gelu_levels import GELU_BLOCKS
from fastdiff.systems.vqvae.vqvae import Reconstruction, check_images

BLOCKS = ("group_norm", *GELU_BLOCKS)


class HierarchicalVQVAE(nn.Module):
    """Encoders one after another, each halving the size; quantisation from the coarsest map to the finest.

    The rows of a level are a 1x1 convolution of its encoder's output and what the coarser level's decoder makes of its
    codes. The finest level's decoder sees the codes of all levels, the coarser ones enlarged, and makes the image. All
    lists of maps are coarsest first.

    Args:
        channels: channels of the images.
        levels: number of maps; images have sides that are multiples of 2^levels.
        width: channels of the networks.
        layers: residual blocks per encoder and decoder ("group_norm": per resolution).
        block: "group_norm" (group norm, SiLU, 3x3 convolutions; two resolutions per level, the lower `mult` times as
            wide), "convnext" or "resnet" (GELU).
        mult: see `block`.
        groups: groups of a group norm.
        attention_levels: levels, 0 being the finest, whose blocks at the lower resolution are followed by attention.
        heads: heads of an attention.
        dropout: in the residual blocks, [0, 1). These four are of use to "group_norm" alone.
        num_codebook: K of every level.
        dim_codebook: D of every level.
        codebook_flavor: one of `fastdiff.nn.codebook.FLAVORS`, or "fsq".
        codebook_options: further arguments of the codebooks.
        compat: as in the original's later version: coarser codes are enlarged by transposed convolutions, and only
            a level with at least two coarser ones sees their codes. With the other defaults and "convnext" it has
            5 357 571 parameters.

    Raises:
        ValueError: for an unknown block or flavor, or sizes out of range.

    Source: Dirmeier 2024 (hierarchical-vqvae), after Razavi et al. 2019.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        levels: int = 3,
        width: int = 128,
        layers: int = 2,
        block: str = "group_norm",
        mult: int = 2,
        groups: int = 32,
        attention_levels: Sequence[int] = (),
        heads: int = 1,
        dropout: float = 0.1,
        num_codebook: int = 512,
        dim_codebook: int = 64,
        codebook_flavor: str = "classic",
        codebook_options: Mapping[str, Any] | None = None,
        compat: bool = False,
    ) -> None:
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        config["attention_levels"] = sorted(attention_levels)
        config["codebook_options"] = dict(codebook_options or {})
        self.config: dict[str, Any] = config
        self._check_config()
        self.levels = range(levels)
        self._build(config)

    # -- parts --------------------------------------------------------------------------------------------------

    def _build(self, c: dict[str, Any]) -> None:
        width, dim, count = c["width"], c["dim_codebook"], c["levels"]
        self.encoders = nn.ModuleList(
            self._encoder(i, c["channels"] if i == 0 else width) for i in self.levels
        )
        self.decoders = nn.ModuleList(self._decoder(i, width if i else c["channels"]) for i in self.levels)
        merged = [width if i == count - 1 else 2 * width for i in self.levels]
        self.merges = nn.ModuleList(nn.Conv2d(wide, dim, 1) for wide in merged)
        self.enlarge = nn.ModuleList()
        if c["compat"]:
            for i in self.levels:
                coarser = self._seen(i)
                self.enlarge.append(nn.ModuleList(gelu_levels.doubling(dim, j - i) for j in coarser))
        if c["block"] in GELU_BLOCKS:
            for part in (self.encoders, self.decoders, self.enlarge):
                gelu_levels.start_small(part)
        options = c["codebook_options"]
        self.codebooks = nn.ModuleList(
            make_codebook(c["codebook_flavor"], c["num_codebook"], dim, **options) for _ in self.levels
        )

    def _seen(self, level: int) -> list[int]:
        """The coarser levels whose codes the decoder of `level` sees, coarsest first."""
        coarser = list(reversed(self.levels[level + 1 :]))
        return [] if self.config["compat"] and len(coarser) < 2 else coarser

    def _enlargers(self, level: int) -> list[nn.Module]:
        return list(self.enlarge[level])  # type: ignore[call-overload]

    def _encoder(self, level: int, entering: int) -> nn.Module:
        c = self.config
        if c["block"] in GELU_BLOCKS:
            return gelu_levels.encoder(entering, c["width"], layers=c["layers"], block=c["block"])
        return group_norm_levels.encoder(
            entering, c["width"], c["width"], (1, c["mult"]), **self._options(level)
        )

    def _decoder(self, level: int, leaving: int) -> nn.Module:
        c = self.config
        entering = c["dim_codebook"] * (1 + len(self._seen(level)))
        if c["block"] in GELU_BLOCKS:
            return gelu_levels.decoder(entering, leaving, c["width"], layers=c["layers"], block=c["block"])
        mults = (1, c["mult"])
        return group_norm_levels.decoder(entering, leaving, c["width"], mults, **self._options(level))

    def _options(self, level: int) -> dict[str, Any]:
        heads = self.config["heads"] if level in self.config["attention_levels"] else 0
        return {"heads": heads, **{name: self.config[name] for name in ("layers", "groups", "dropout")}}

    # -- use ----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Reconstruction:
        """Reconstruct images.

        Args:
            x: (B, C, H, W), height and width multiples of 2^levels.

        Raises:
            ValueError: for another shape.
        """
        found = self.quantise(x)
        codes = [level.quantised for level in found]
        stacked = (torch.stack(values) for values in zip(*[(f.perplexity, f.usage) for f in found]))
        loss = torch.stack([f.loss for f in found]).sum()
        return Reconstruction(self.decode(codes), codes, [f.indices for f in found], loss, *stacked)

    def quantise(self, x: Tensor) -> list[Quantised]:
        """The codes of images, coarsest first: `quantised` (B, D, h, w) and `indices` (B, h, w) of each level."""
        check_images("HierarchicalVQVAE", x, self.config["channels"], 2 ** len(self.levels))
        features: list[Tensor] = []
        for encoder in self.encoders:
            features.append(encoder(features[-1] if features else x))
        found: list[Quantised] = []
        for level in reversed(self.levels):
            rows = [features[level]]
            if found:
                rows.append(self._decoded(level + 1, [f.quantised for f in found]))
            z = self.merges[level](torch.cat(rows, 1))
            level_found = self.codebooks[level](z.permute(0, 2, 3, 1))
            found.append(level_found._replace(quantised=level_found.quantised.permute(0, 3, 1, 2)))
        return found

    def _decoded(self, level: int, codes: list[Tensor]) -> Tensor:
        """What the decoder of `level` makes of the codes of this and all coarser levels, coarsest first."""
        own, coarser = codes[-1], codes[: len(self._seen(level))]
        if self.config["compat"]:
            larger = [enlarge(code) for enlarge, code in zip(self._enlargers(level), coarser)]
        else:
            larger = [functional.interpolate(code, own.shape[2:], mode="nearest") for code in coarser]
        return self.decoders[level](torch.cat([own, *larger], 1))

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """The images (B, C, H, W) of the codes (B, D, h, w) of all levels, coarsest first.

        Raises:
            ValueError: for another number of levels, or a level that is not twice as large as the one before.
        """
        if len(codes) != len(self.levels):
            raise ValueError(
                f"HierarchicalVQVAE: codes must be those of {len(self.levels)} levels, got {len(codes)}"
            )
        (batch, dim, height, width), shapes = codes[0].shape, [tuple(code.shape) for code in codes]
        if shapes != [(batch, dim, height << i, width << i) for i in range(len(codes))]:
            raise ValueError(
                f"HierarchicalVQVAE: codes must double in height and width from level to level, got {shapes}"
            )
        return self._decoded(0, list(codes))

    @torch.no_grad()
    def indices(self, x: Tensor) -> list[Tensor]:
        """The indices (B, h, w) of images x (B, C, H, W), coarsest first."""
        return [found.indices for found in self.quantise(x)]

    def lookup(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Codes (B, D, h, w) of indices (B, h, w), coarsest first."""
        books: list[Quantiser] = list(reversed(self.codebooks))  # type: ignore[arg-type]
        return [book.lookup(i).permute(0, 3, 1, 2) for book, i in zip(books, indices)]

    @torch.no_grad()
    def images(self, indices: Sequence[Tensor]) -> Tensor:
        """The images (B, C, H, W) of indices (B, h, w), coarsest first."""
        return self.decode(self.lookup(indices))

    # -- checks -------------------------------------------------------------------------------------------------

    def _check_config(self) -> None:
        c = self.config
        for name in ("channels", "levels", "width", "layers", "mult", "groups", "heads"):
            self._require(isinstance(c[name], int) and c[name] >= 1, name, "be an integer >= 1")
        self._require(c["block"] in BLOCKS, "block", f"be one of {', '.join(BLOCKS)}")
        self._require(0 <= c["dropout"] < 1, "dropout", "lie in [0, 1)")
        inside = all(0 <= level < c["levels"] for level in c["attention_levels"])
        self._require(inside, "attention_levels", f"name levels 0 ... {c['levels'] - 1}")
        alone = not c["attention_levels"] or c["block"] == "group_norm"
        self._require(alone, "attention_levels", f"be empty for blocks of kind {c['block']!r}")

    def _require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            raise ValueError(f"HierarchicalVQVAE: {name} must {what}, got {self.config[name]!r}")
