"""How well an autoencoder with discrete latents reconstructs images, and how it uses its codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.nn.codebook import perplexity, usage
from fastdiff.systems.vqvae import VQVAE, HierarchicalVQVAE


@dataclass(frozen=True)
class ReconstructionReport:
    """Figures over a whole set of images in [-1, 1].

    Attributes:
        images: how many.
        error: mean square error of a pixel.
        psnr: 10 log10(4 / error), decibels (4: the square of the range).
        perplexity: exp of the entropy of the codes over the whole set, for each codebook, coarsest level first.
        usage: share of the codes that occur at all, likewise.
        bits: log2(K) bits for every index of an image, as they would be stored without a model of them.
    """

    images: int
    error: float
    psnr: float
    perplexity: tuple[float, ...]
    usage: tuple[float, ...]
    bits: float


@torch.no_grad()
def judge_reconstruction(autoencoder: nn.Module, images: Tensor, *, batch: int = 250) -> ReconstructionReport:
    """Reconstruct images and sum up.

    Args:
        autoencoder: a `VQVAE` or `HierarchicalVQVAE` in evaluation mode.
        images: (N, C, H, W) uint8, or float in [-1, 1].
        batch: images at a time.

    Raises:
        TypeError: for another kind of autoencoder.
        ValueError: for no images, or an autoencoder in training mode, which would learn from them.
    """
    if not isinstance(autoencoder, (VQVAE, HierarchicalVQVAE)):
        kind = type(autoencoder).__name__
        raise TypeError(f"judge_reconstruction: autoencoder must be a VQVAE or HierarchicalVQVAE, got {kind}")
    if autoencoder.training:
        raise ValueError("judge_reconstruction: autoencoder must be in evaluation mode, call .eval()")
    if images.dim() != 4 or batch < 1 or not len(images):
        got = tuple(images.shape)
        raise ValueError(
            f"judge_reconstruction: images must be (N >= 1, C, H, W) and batch >= 1, got {got}, {batch}"
        )
    codes, device = autoencoder.config["num_codebook"], next(autoencoder.parameters()).device
    square, counts = 0.0, None
    for part in images.split(batch):
        x = part.to(device).float()
        x = x.div(127.5).sub(1) if part.dtype == torch.uint8 else x
        out = autoencoder(x)
        square += float((out.images.double() - x.double()).square().sum())
        found = [level.flatten().bincount(minlength=codes).cpu() for level in _codebooks(out.indices)]
        counts = found if counts is None else [old + new for old, new in zip(counts, found)]
    error = square / images.numel()
    counts = counts or []
    indices = sum(int(level.sum()) for level in counts) // len(images)
    return ReconstructionReport(
        len(images),
        error,
        10 * math.log10(4 / error) if error else math.inf,
        tuple(float(perplexity(level)) for level in counts),
        tuple(float(usage(level)) for level in counts),
        indices * math.log2(codes),
    )


def _codebooks(indices: Any) -> Iterator[Tensor]:
    """The indices of each codebook: levels one by one, and the stages or parts of each."""
    for level in indices if isinstance(indices, list) else [indices]:
        yield from level.reshape(*level.shape[:3], -1).unbind(-1)
