"""Usage of codes and likelihood of hidden ones, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fastdiff.evaluation.latents import centre_mask, latent_usage, patched_nll_bits


def test_usage_counts_codes_once() -> None:
    assert latent_usage(torch.tensor([[0, 3], [3, 0]]), 8) == 0.25
    with pytest.raises(ValueError, match=r"indices must be in 0 \.\.\. 2"):
        latent_usage(torch.tensor([3]), 3)


def test_bits_of_hidden_codes_alone() -> None:
    """Two codes at distances 0 and log 3: p = 3/4, 1/4; the known place would be infinitely wrong."""
    distances = torch.tensor([0.0, math.log(3)]).expand(1, 1, 3, 2).clone()
    distances[0, 0, 0] = torch.tensor([1e9, 0.0])
    index, mask = torch.tensor([[[0, 0, 1]]]), torch.tensor([[1, 0, 0]])
    wanted = (-math.log2(0.75) - math.log2(0.25)) / 2
    assert patched_nll_bits(distances, index, mask) == pytest.approx(wanted)
    with pytest.raises(ValueError, match="must leave some codes unknown"):
        patched_nll_bits(distances, index, torch.ones(1, 3))
    with pytest.raises(ValueError, match="must fit"):
        patched_nll_bits(distances, index, torch.ones(2, 3))


def test_the_centre_has_the_side_asked_for() -> None:
    mask = centre_mask(8, 8, 4)
    assert mask.sum() == 64 - 16 and not mask[2:6, 2:6].any()
    with pytest.raises(ValueError, match=r"side must be in 1 \.\.\. 8, got 9"):
        centre_mask(8, 8, 9)
