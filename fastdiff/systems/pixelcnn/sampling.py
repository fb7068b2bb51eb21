"""Drawing maps of codes from a gated PixelCNN, whole or around known codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Seeds
from fastdiff.systems.pixelcnn.network import GatedPixelCNN
from fastdiff.systems.pixelcnn.rows import Rows


@torch.no_grad()
def sample_codes(
    net: GatedPixelCNN,
    size: Sequence[int],
    *,
    num: int | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    seeds: Seeds | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    cached: bool = True,
) -> Tensor:
    """Maps of codes, drawn in reading order; map i depends on seed i (and its label) alone, not on the batch.

    Args:
        net: the prior, called in evaluation mode.
        size: (H, W) of a map.
        num: number of maps; 16, or as many as there are seeds.
        labels: (num,) int64 classes, for a network that has them.
        seed: map i has the seed `seed + i`.
        seeds: the seeds themselves.
        known: (num, H, W) or (H, W) int64 codes, kept where `mask` is 1.
        mask: (num, H, W) or (H, W), 1 where known. A code is drawn given the known ones before it, not those after.
        temperature: divides the logits, > 0; below 1 draws likelier maps.
        cached: remember the layers of earlier codes; False calls the whole network for every code, as a check.

    Returns:
        (num, H, W) int64.

    Raises:
        ValueError: for an argument that does not fit.
    """
    height, width = _sized(size)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"sample_codes: temperature must be finite and > 0, got {temperature}")
    count = num if num is not None else 16 if seeds is None else len(seeds)
    place = net.embedding.weight.device
    drawn_by = rng.seed_tensor(seed, count, seeds, device=place)
    uniform = rng.uniform(drawn_by, (height * width,), stream=rng.Stream.INITIAL, dtype=torch.float64)
    codes = torch.zeros(count, height, width, dtype=torch.int64, device=place)
    fixed = _known(codes, known, mask)
    net.check(codes, labels)
    training = net.training
    net.eval()
    rows = Rows(net, count, width, labels) if cached else None
    for i in range(height):
        if rows is not None:
            rows.start_row()
        for j in range(width):
            if not bool(fixed[:, i, j].all()):
                logits = net(codes, labels)[:, :, i, j] if rows is None else rows.logits(j)
                drawn = _draw(logits / temperature, uniform[:, i * width + j])
                codes[:, i, j] = torch.where(fixed[:, i, j], codes[:, i, j], drawn)
            elif rows is not None:
                rows.logits(j)
            if rows is not None:
                rows.put(j, codes[:, i, j])
    net.train(training)
    return codes


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The code (B,) at which the distribution function of logits (B, K) passes uniform (B,) in (0, 1)."""
    cumulated = logits.double().softmax(1).cumsum(1)
    found = torch.searchsorted(cumulated, (uniform * cumulated[:, -1]).unsqueeze(1)).squeeze(1)
    return found.clamp_(max=logits.shape[1] - 1)


def _sized(size: Sequence[int]) -> tuple[int, int]:
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size)
    ):
        raise ValueError(f"sample_codes: size must be (H, W), both >= 1, got {size}")
    return size[0], size[1]


def _known(codes: Tensor, known: Tensor | None, mask: Tensor | None) -> Tensor:
    """Which codes are fixed, (B, H, W) bool; theirs are written into `codes`."""
    if known is None and mask is None:
        return torch.zeros_like(codes, dtype=torch.bool)
    if known is None or mask is None:
        raise ValueError("sample_codes: known and mask must be given together, got one of them")
    size = tuple(codes.shape[1:])
    for name, value in (("known", known), ("mask", mask)):
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        if shape not in (size, (1, *size), (len(codes), *size)):
            got = shape if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"sample_codes: {name} must fit {tuple(codes.shape)}, got {got}")
    if known.is_floating_point() or known.is_complex():
        raise ValueError(f"sample_codes: known must be whole numbers, got {known.dtype}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("sample_codes: mask must be 0 or 1 everywhere, got other values")
    fixed = (mask != 0).to(codes.device).expand_as(codes)
    codes.copy_(torch.where(fixed, known.to(codes.device), codes))
    return fixed
