"""Codes, indices and gradients of the search against plain float64 autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastdiff.nn.codebook import (
    Codebook,
    EMACodebook,
    GumbelCodebook,
    SphericalCodebook,
    perplexity,
    straight_through,
    usage,
)


def rows(*shape: int, seed: int = 0, **kind: object) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(**kind)  # type: ignore[call-overload]


def with_codes(codebook: Codebook, seed: int = 1) -> Codebook:
    codebook.weight.data.copy_(rows(*codebook.weight.shape, seed=seed))
    return codebook


def by_hand(z: Tensor, e: Tensor, commitment: float) -> tuple[Tensor, Tensor, Tensor]:
    """Codes with a straight-through gradient, loss and indices, spelled out."""
    index = (z.unsqueeze(-2) - e).square().sum(-1).argmin(-1)
    q = e[index]
    loss = (q - z.detach()).square().mean() + commitment * (q.detach() - z).square().mean()
    return z + (q - z).detach(), loss, index


@pytest.mark.parametrize("permuted", [False, True])
def test_gradients_are_those_of_the_formulas(permuted: bool) -> None:
    codebook = with_codes(Codebook(7, 5, commitment=0.3))
    z = rows(2, 5, 3, 4).requires_grad_() if permuted else rows(2, 3, 4, 5).requires_grad_()
    out = codebook(z.permute(0, 2, 3, 1) if permuted else z)
    weights = rows(*out.quantised.shape, seed=2)
    ((out.quantised * weights).sum() + 2 * out.loss).backward()
    z64, e64 = z.detach().double().requires_grad_(), codebook.weight.detach().double().requires_grad_()
    codes, loss, index = by_hand(z64.permute(0, 2, 3, 1) if permuted else z64, e64, 0.3)
    ((codes * weights.double()).sum() + 2 * loss).backward()
    assert torch.equal(out.indices, index)
    torch.testing.assert_close(out.loss.double(), loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(z.grad.double(), z64.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(codebook.weight.grad.double(), e64.grad, rtol=1e-5, atol=1e-7)


def test_codes_come_out_bit_for_bit_and_agree_with_the_lookup() -> None:
    codebook = with_codes(Codebook(9, 4))
    out = codebook(1e4 * rows(50, 4, seed=3).requires_grad_())
    assert torch.equal(out.quantised, codebook.weight[out.indices])
    assert torch.equal(out.quantised, codebook.lookup(out.indices))


def test_only_the_part_of_the_loss_that_is_used_has_a_gradient() -> None:
    codebook = with_codes(Codebook(4, 3, commitment=0.0))
    z = rows(6, 3).requires_grad_()
    codebook(z).loss.backward()
    assert codebook.weight.grad.abs().sum() > 0 and not z.grad.any()
    frozen = with_codes(Codebook(4, 3)).requires_grad_(False)
    frozen(z).loss.backward()
    assert z.grad.abs().sum() > 0


def test_compat_counts_the_square_once_with_both_gradients() -> None:
    codebook = with_codes(Codebook(5, 3, commitment=0.25, compat=True))
    z = rows(20, 3).requires_grad_()
    out = codebook(z)
    out.loss.backward()
    z64, e64 = z.detach().double().requires_grad_(), codebook.weight.detach().double().requires_grad_()
    loss = (z64 - e64[out.indices]).square().mean()
    loss.backward()
    torch.testing.assert_close(out.loss.double(), loss)
    torch.testing.assert_close(z.grad.double(), z64.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(codebook.weight.grad.double(), e64.grad, rtol=1e-5, atol=1e-7)
    plain = Codebook(5, 3)
    plain.weight.data.copy_(codebook.weight)
    torch.testing.assert_close(out.perplexity, plain(z).perplexity / 5)


def test_ties_go_to_the_lowest_index() -> None:
    codebook = Codebook(4, 2)
    codebook.weight.data.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 1.0]]))
    assert codebook(torch.tensor([[0.0, 0.0], [0.0, 3.0]])).indices.tolist() == [1, 1]


@pytest.mark.parametrize("kind", [Codebook, EMACodebook, GumbelCodebook, SphericalCodebook])
def test_a_single_code(kind: type[Codebook]) -> None:
    codebook, z = kind(1, 3), rows(5, 3).requires_grad_()
    out = codebook(z)
    assert out.indices.tolist() == [0] * 5
    assert (out.perplexity.item(), out.usage.item()) == (1.0, 1.0)
    (out.quantised.sum() + out.loss).backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("kind", [Codebook, EMACodebook, GumbelCodebook, SphericalCodebook])
def test_an_empty_batch(kind: type[Codebook]) -> None:
    codebook, z = kind(4, 3), torch.zeros(0, 2, 3, requires_grad=True)
    before = codebook.weight.detach().clone()
    out = codebook(z)
    assert out.quantised.shape == (0, 2, 3) and out.indices.shape == (0, 2)
    assert (out.loss.item(), out.perplexity.item(), out.usage.item()) == (0.0, 1.0, 0.0)
    (out.quantised.sum() + out.loss).backward()
    torch.testing.assert_close(codebook.weight.detach(), before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_computed_in_float32(dtype: torch.dtype) -> None:
    codebook, z = with_codes(Codebook(16, 8)), rows(40, 8, dtype=dtype).requires_grad_()
    out, full = codebook(z), codebook(z.float())
    assert out.quantised.dtype == torch.float32 and torch.equal(out.indices, full.indices)
    assert torch.equal(out.loss, full.loss)
    out.quantised.sum().backward()
    assert z.grad.dtype == dtype and bool((z.grad == 1).all())


def test_autocast_does_not_reach_the_distances() -> None:
    codebook, z = with_codes(Codebook(16, 8)), rows(40, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = codebook.distances(z), codebook(z).indices
    assert torch.equal(found[0], codebook.distances(z)) and torch.equal(found[1], codebook(z).indices)
    exact = (z.double()[:, None] - codebook.weight.double()).square().sum(-1)
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-5, atol=1e-5)


def test_straight_through_gives_the_bits_of_the_codes() -> None:
    z, codes = rows(3, 4).requires_grad_(), rows(3, 4, seed=5).requires_grad_()
    out = straight_through(z, codes)
    assert torch.equal(out, codes)
    (out * codes.detach()).sum().backward()
    assert torch.equal(z.grad, codes.detach()) and codes.grad is None


def test_perplexity_and_usage() -> None:
    even, one = torch.full((8,), 3), torch.tensor([0, 7, 0, 0])
    assert (round(perplexity(even).item(), 4), usage(even).item()) == (8.0, 1.0)
    assert (perplexity(one).item(), usage(one).item()) == (1.0, 0.25)
    p = torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(perplexity(4 * p), (-(p * p.log()).sum()).exp())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Codebook(0, 4), "Codebook: num_codes must be an integer >= 1, got 0"),
        (lambda: Codebook(4, 0), "Codebook: dim must be an integer >= 1, got 0"),
        (lambda: Codebook(4, 4, commitment=-1), "Codebook: commitment must be >= 0"),
        (lambda: EMACodebook(4, 4, decay=1.0), r"EMACodebook: decay must lie in \[0, 1\)"),
        (lambda: EMACodebook(4, 4, eps=0), "EMACodebook: eps must be > 0"),
        (lambda: EMACodebook(4, 4, revive=2), r"EMACodebook: revive must lie in \[0, 1\)"),
        (lambda: GumbelCodebook(4, 4, temperature=0), "GumbelCodebook: temperature must be > 0"),
        (lambda: SphericalCodebook(4, 4, mode="best"), "mode must be one of deterministic, sample"),
        (
            lambda: Codebook(4, 3)(torch.zeros(2, 5)),
            r"Codebook: z must be \(..., 3\), channels last, got \(2, 5\)",
        ),
        (lambda: EMACodebook(4, 3)(torch.zeros(2, 5)), r"EMACodebook: z must be \(..., 3\)"),
        (lambda: Codebook(4, 3).lookup(torch.tensor([4])), r"indices must lie in \[0, 4\), got '4 ... 4'"),
        (lambda: Codebook(4, 3).lookup(torch.tensor([0.0])), "indices must be an int64 or int32 tensor"),
    ],
)
def test_wrong_values(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("kind", [Codebook, EMACodebook, GumbelCodebook, SphericalCodebook])
def test_wrong_kinds(kind: type[Codebook]) -> None:
    name = kind.__name__
    with pytest.raises(TypeError, match=f"{name}: z must be a floating tensor, got torch.int64"):
        kind(4, 3)(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=f"{name}: the codebook must stay float32 .*, got torch.float16"):
        kind(4, 3).half()(torch.zeros(2, 3).half())
