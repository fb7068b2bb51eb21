"""A gated PixelCNN over the codes of a VQ-VAE: the autoregressive way to images, a yardstick for the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.rng import Seeds
from fastdiff.systems.pixelcnn.network import GatedPixelCNN
from fastdiff.systems.pixelcnn.sampling import sample_codes
from fastdiff.systems.vqvae import VQVAE


class LatentPixelCNN(nn.Module):
    """VQ-VAE and PixelCNN.

    Args:
        vqvae: options of the `VQVAE`.
        prior: options of the `GatedPixelCNN`, without input_dim.
        image_size: height and width of the images.
    """

    def __init__(self, vqvae: Mapping[str, Any], prior: Mapping[str, Any], *, image_size: int = 32) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"vqvae": dict(vqvae), "prior": dict(prior), "image_size": image_size}
        self.vqvae = VQVAE(**vqvae)
        self.prior = GatedPixelCNN(self.vqvae.config["num_codebook"], **prior)
        self.image_shape = (self.vqvae.config["channels"], image_size, image_size)
        self.size = (self.vqvae.codes_across(image_size),) * 2

    def train(self, mode: bool = True) -> LatentPixelCNN:
        """Training mode of the prior; the VQ-VAE, which is kept as it is, stays in evaluation mode."""
        super().train(mode)
        self.vqvae.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Negative log-likelihood in nats of each code of images (B, C, H, W) in [-1, 1], (B, h, w)."""
        return self.prior.nll(self.vqvae.indices(images), labels)

    @torch.no_grad()
    def sample(
        self,
        num: int | None = None,
        *,
        labels: Tensor | None = None,
        seed: int = 0,
        seeds: Seeds | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Images (num, C, H, W) in [-1, 1].

        Args:
            num: number of images; 16, or as many as there are seeds.
            labels: (num,) int64 classes, for a network that has them.
            seed: image i has the seed `seed + i`.
            seeds: the seeds themselves.
            known: images (num, C, H, W) or (C, H, W), encoded and kept where `mask` is 1.
            mask: 1 where known, of pixels ([num,] [1,] H, W) or of codes ([num,] [1,] h, w).
            temperature: divides the logits, > 0.

        Raises:
            ValueError: for an argument that does not fit.
        """
        self.vqvae.eval()
        codes = sample_codes(
            self.prior,
            self.size,
            num=num,
            labels=labels,
            seed=seed,
            seeds=seeds,
            known=None if known is None else self._codes(known),
            mask=None if mask is None else self._code_mask(mask),
            temperature=temperature,
        )
        return self.vqvae.images(codes).clamp(-1.0, 1.0)

    def _codes(self, known: Tensor) -> Tensor:
        """The codes (num, h, w) of images (num, C, H, W), or (1, h, w) of one image (C, H, W)."""
        if not isinstance(known, Tensor) or known.shape[-3:] != self.image_shape:
            got = tuple(known.shape) if isinstance(known, Tensor) else type(known).__name__
            raise ValueError(f"LatentPixelCNN: known must be images {self.image_shape}, got {got}")
        return self.vqvae.indices(known.reshape(-1, *self.image_shape))

    def _code_mask(self, mask: Tensor) -> Tensor:
        """A mask of pixels or codes as (h, w) or (num, h, w) of codes."""
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else ()
        size = shape[-2:]
        if len(shape) not in (2, 3, 4) or size not in (self.size, self.image_shape[1:]):
            raise ValueError(
                f"LatentPixelCNN: mask must be {self.image_shape[1:]} pixels or {self.size} codes, got {shape}"
            )
        flat = mask.amin(1) if mask.ndim == 4 else mask
        return flat if size == self.size else self.vqvae.known_codes(flat)
