"""The hierarchical VQ-VAE: size of the original, shapes, order of the levels, agreement with its indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastdiff import systems
from fastdiff.nn import Attention
from fastdiff.systems.vqvae import HierarchicalVQVAE
from fastdiff.systems.vqvae.gelu_levels import Conv4, doubling
from fastdiff.systems.vqvae.vqvae import reconstruction_loss

SMALL: dict[str, Any] = {
    "width": 8,
    "layers": 1,
    "groups": 4,
    "num_codebook": 16,
    "dim_codebook": 4,
    "dropout": 0.0,
}


def made(**options: Any) -> HierarchicalVQVAE:
    torch.manual_seed(0)
    return HierarchicalVQVAE(1, **{**SMALL, **options})


def test_size_of_the_original() -> None:
    assert sum(p.numel() for p in HierarchicalVQVAE(block="convnext", compat=True).parameters()) == 5_357_571


KINDS: list[dict[str, Any]] = [
    {"attention_levels": (2,)},
    {"block": "convnext"},
    {"block": "convnext", "compat": True},
    {"block": "resnet", "compat": True, "codebook_flavor": "ema"},
    {"codebook_flavor": "residual", "codebook_options": {"stages": 2}},
]


@pytest.mark.parametrize("options", KINDS)
def test_shapes_gradients_and_indices(options: dict[str, Any]) -> None:
    net, x = made(**options), torch.randn(2, 1, 16, 24)
    nn.init.normal_(
        list(net.decoders[0].parameters())[-2], std=0.1
    )  # where it starts at zero, nothing flows back
    out = net(x)
    assert out.images.shape == x.shape
    assert [tuple(q.shape) for q in out.quantised] == [(2, 4, 2, 3), (2, 4, 4, 6), (2, 4, 8, 12)]
    assert [tuple(i.shape[:3]) for i in out.indices] == [(2, 2, 3), (2, 4, 6), (2, 8, 12)]
    assert out.perplexity.shape[0] == out.usage.shape[0] == 3
    reconstruction_loss(out, x).backward()
    assert all(p.grad is not None for p in net.encoders.parameters())
    assert all(
        p.grad.abs().sum() > 0
        for p in net.encoders[0].parameters()
        if p.dim() > 1 and p.shape != (8, 8, 1, 1)
    )
    net.eval()
    out = net(x)
    assert all(torch.equal(a, b) for a, b in zip(net.indices(x), out.indices, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(net.lookup(out.indices), out.quantised, strict=True))
    assert torch.equal(net.images(out.indices), out.images)


def test_a_level_depends_on_the_coarser_ones_and_the_image_on_all() -> None:
    net = made().eval()
    nn.init.normal_(list(net.decoders[0].parameters())[-2])
    codes = [torch.randn(1, 4, n, n, requires_grad=True) for n in (2, 4, 8)]
    net.decode(codes).sum().backward()
    assert all(code.grad.abs().sum() > 0 for code in codes)
    original = made(block="convnext", compat=True)
    assert [original._seen(level) for level in range(3)] == [[2, 1], [], []]
    assert [net._seen(level) for level in range(3)] == [[2, 1], [2], []]


def test_attention_is_where_it_is_asked_for() -> None:
    net = made(attention_levels=(0, 2))
    for parts in (net.encoders, net.decoders):
        found = [sum(isinstance(m, Attention) for m in level.modules()) for level in parts]
        assert found == [1, 0, 1]


def test_sizes_of_convolutions_with_even_kernels() -> None:
    x = torch.randn(1, 3, 5, 7)
    assert Conv4(3, 2)(x).shape == (1, 2, 5, 7)
    assert doubling(3, 2)(x).shape == (1, 3, 20, 28)
    one = Conv4(1, 1)
    nn.init.ones_(one.weight)
    nn.init.zeros_(one.bias)
    assert one(torch.ones(1, 1, 5, 5))[0, 0, 0].tolist() == [9, 12, 12, 9, 6]


def test_is_stored_and_loaded(tmp_path: Any) -> None:
    net, x = made(codebook_flavor="ema", attention_levels=(1,)), torch.randn(1, 1, 8, 8)
    again = systems.load(systems.save(net, tmp_path / "m"))
    assert isinstance(again, HierarchicalVQVAE) and torch.equal(again(x).images, net.eval()(x).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels must be an integer >= 1, got 0"),
        ({"block": "vit"}, "block must be one of group_norm, convnext, resnet, got 'vit'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"attention_levels": (3,)}, r"attention_levels must name levels 0 ... 2, got \[3\]"),
        (
            {"attention_levels": (0,), "block": "resnet"},
            "attention_levels must be empty for blocks of kind 'resnet'",
        ),
        ({"attention_levels": (0,), "heads": 3}, "Attention: heads must divide the 16 channels, got 3"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_no_images() -> None:
    net = made(attention_levels=(1,)).eval()
    assert net(torch.zeros(0, 1, 16, 16)).images.shape == (0, 1, 16, 16)


def test_wrong_input() -> None:
    net = made()
    for x in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 12, 8), torch.zeros(1, 8, 8)):
        with pytest.raises(ValueError, match=r"x must be \(B, 1, H, W\), H and W multiples of 8, got"):
            net(x)
    with pytest.raises(TypeError, match="HierarchicalVQVAE: x must be floating point, .* got torch.uint8"):
        net(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    for sides in ((8, 4, 2), (2, 4, 4), (2, 2, 2)):
        with pytest.raises(
            ValueError, match="codes must double in height and width from level to level, got"
        ):
            net.images([torch.zeros(1, n, n, dtype=torch.int64) for n in sides])
    with pytest.raises(ValueError, match="codes must be those of 3 levels, got 2"):
        net.decode([torch.zeros(1, 4, 2, 2)] * 2)
