"""Figures of reconstructions against sums over the whole set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fastdiff.evaluation import judge_reconstruction
from fastdiff.nn.codebook import perplexity, usage
from fastdiff.systems.vqvae import VQVAE, HierarchicalVQVAE


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("batch", [3, 100])
def test_figures_are_those_of_the_whole_set(batch: int) -> None:
    torch.manual_seed(0)
    net = VQVAE(16, 4, channels=1).eval()
    x = images(10).float() / 127.5 - 1
    out = net(x)
    counts = out.indices.flatten().bincount(minlength=16)
    report = judge_reconstruction(net, images(10), batch=batch)
    assert report.error == pytest.approx((out.images - x).square().mean().item(), rel=1e-5)
    assert report.psnr == pytest.approx(10 * math.log10(4 / report.error))
    assert report.perplexity == (pytest.approx(perplexity(counts).item(), rel=1e-5),)
    assert report.usage == (usage(counts).item(),)
    assert (report.images, report.bits) == (10, 16 * 4)
    assert judge_reconstruction(net, x).error == pytest.approx(report.error)


@pytest.mark.parametrize(
    ("net", "books", "indices"),
    [
        (lambda: HierarchicalVQVAE(1, width=8, layers=1, num_codebook=16, dim_codebook=4), 3, 1 + 4 + 16),
        (lambda: VQVAE(16, 4, channels=1, codebook_flavor="residual"), 2, 32),
    ],
)
def test_each_codebook_has_its_figures(net: Any, books: int, indices: int) -> None:
    torch.manual_seed(0)
    report = judge_reconstruction(net().eval(), images(4))
    assert len(report.perplexity) == len(report.usage) == books
    assert report.bits == indices * 4


def test_wrong_input() -> None:
    net = VQVAE(16, 4, channels=1)
    with pytest.raises(ValueError, match="autoencoder must be in evaluation mode"):
        judge_reconstruction(net, images(2))
    with pytest.raises(ValueError, match=r"images must be \(N >= 1, C, H, W\)"):
        judge_reconstruction(net.eval(), images(0))
    with pytest.raises(TypeError, match="must be a VQVAE or HierarchicalVQVAE, got Linear"):
        judge_reconstruction(torch.nn.Linear(2, 2), images(2))
