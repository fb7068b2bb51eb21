"""Norms, attention and embeddings against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fastdiff.nn import Attention, ClassEmbedding, GroupNormSiLU, RMSNormSiLU, TimeEmbedding, sinusoidal
from fastdiff.ops import attention


def modulation(batch: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, channels).double(), torch.randn(batch, channels).double()


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("activate", [False, True])
def test_rms_norm_formula(modulated: bool, activate: bool) -> None:
    norm = RMSNormSiLU(6, activate=activate).double()
    norm.weight.data.normal_()
    x = torch.randn(2, 6, 3, 5).double()
    scale, shift = modulation(2, 6) if modulated else (None, None)
    expected = x / x.square().sum(1, keepdim=True).sqrt() * math.sqrt(6) * norm.weight[:, None, None]
    if scale is not None and shift is not None:
        expected = expected * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    expected = expected * torch.sigmoid(expected) if activate else expected
    torch.testing.assert_close(norm(x, scale, shift), expected)


@pytest.mark.parametrize("modulated", [False, True])
def test_group_norm_formula(modulated: bool) -> None:
    norm = GroupNormSiLU(6, groups=4).double()
    assert norm.groups == 3
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(2, 6, 3, 5).double()
    scale, shift = modulation(2, 6) if modulated else (None, None)
    rows = x.reshape(2, 3, -1)
    rows = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = rows.reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]
    if scale is not None and shift is not None:
        expected = expected * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, scale, shift), expected * torch.sigmoid(expected))


def test_rms_norm_of_zero_is_zero_with_finite_gradient() -> None:
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    out = RMSNormSiLU(4)(x)
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("positions", [16, 64, 65, 144])
def test_attention_is_softmax_attention_on_both_paths(positions: int) -> None:
    q, k, v = torch.randn(3, 2, 4, positions, 8).double().unbind(0)
    expected = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8), -1) @ v
    torch.testing.assert_close(attention(q, k, v), expected)


def test_attention_starts_as_identity_and_is_permutation_equivariant() -> None:
    module = Attention(8, heads=2)
    x = torch.randn(2, 8, 3, 4)
    assert torch.equal(module(x), x)
    module.project.weight.data.normal_()
    order = torch.randperm(12)
    moved = x.flatten(2)[:, :, order].reshape(x.shape)
    found = module(moved).flatten(2)
    torch.testing.assert_close(found, module(x).flatten(2)[:, :, order], atol=1e-5, rtol=1e-5)


def test_attention_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="heads must divide the 8 channels, got 3"):
        Attention(8, heads=3)


def test_sinusoidal_code() -> None:
    code = sinusoidal(torch.tensor([0.0, 2.5]), 8)
    frequencies = 10_000.0 ** -(torch.arange(4) / 3)
    torch.testing.assert_close(
        code[1], torch.cat((torch.sin(2.5 * frequencies), torch.cos(2.5 * frequencies)))
    )
    assert torch.equal(code[0], torch.tensor([0.0] * 4 + [1.0] * 4))


def test_embeddings_have_one_row_per_sample() -> None:
    assert TimeEmbedding(8, 12)(torch.arange(3)).shape == (3, 12)
    classes = ClassEmbedding(4, 12)
    assert classes(torch.tensor([0, 4]), 2).shape == (2, 12)
    assert torch.equal(classes(None, 2), classes(torch.tensor([4, 4]), 2))


def test_groups_fit_any_channel_count() -> None:
    for channels in range(1, 40):
        assert channels % GroupNormSiLU(channels, 32).groups == 0
    x = torch.randn(1, 7, 4, 4)
    expected = functional.silu(functional.group_norm(x, 7))
    torch.testing.assert_close(GroupNormSiLU(7)(x), expected)
