"""Metrics of priors over the codes of a VQ-VAE: how many codes are used, and how likely the right ones are."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def latent_usage(indices: Tensor, num_codes: int) -> float:
    """Share of the codes 0 ... num_codes - 1 that occur in indices (any shape, int64).

    Raises:
        ValueError: for no indices, or indices out of range.
    """
    if indices.numel() == 0 or int(indices.min()) < 0 or int(indices.max()) >= num_codes:
        raise ValueError(f"latent_usage: indices must be in 0 ... {num_codes - 1} and not empty, got others")
    return len(indices.unique()) / num_codes


def patched_nll_bits(distances: Tensor, indices: Tensor, mask: Tensor) -> float:
    """Mean of -log2 p(code) over the codes that were not known, p = softmax(-distances).

    Args:
        distances: (N, h, w, K) squared distances of drawn latents to all codes.
        indices: (N, h, w) int64, the true codes.
        mask: (h, w) or (N, h, w), 1 where a code was known and does not count.

    Raises:
        ValueError: for shapes that do not fit, or a mask that leaves nothing.
    """
    if distances.shape[:-1] != indices.shape or mask.shape not in (indices.shape, indices.shape[1:]):
        raise ValueError(
            "patched_nll_bits: distances (N, h, w, K), indices (N, h, w) and mask (h, w) must fit, got "
            f"{tuple(distances.shape)}, {tuple(indices.shape)}, {tuple(mask.shape)}"
        )
    missing = (mask == 0).expand_as(indices)
    if not bool(missing.any()):
        raise ValueError("patched_nll_bits: mask must leave some codes unknown, got 1 everywhere")
    nats = functional.cross_entropy(-distances[missing].double(), indices[missing])
    return float(nats) / math.log(2)


def centre_mask(height: int, width: int, side: int) -> Tensor:
    """(height, width) with 0 in a centred square of `side` codes and 1 around it.

    Raises:
        ValueError: for a square that does not fit.
    """
    if not 1 <= side <= min(height, width):
        raise ValueError(f"centre_mask: side must be in 1 ... {min(height, width)}, got {side}")
    mask = torch.ones(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = 0
    return mask
