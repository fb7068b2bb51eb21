"""Gumbel, spherical, residual, product and finite scalar quantisation."""

from __future__ import annotations

import math

import pytest
import torch

from fastdiff.nn.codebook import (
    FSQ,
    Codebook,
    EMACodebook,
    GumbelCodebook,
    ProductCodebook,
    ResidualCodebook,
    SphericalCodebook,
    make_codebook,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gumbel_choices_have_the_probabilities_of_the_softmax() -> None:
    torch.manual_seed(0)
    codebook = GumbelCodebook(4, 2)
    codebook.weight.data.copy_(drawn(4, 2, seed=1))
    z = torch.tensor([0.3, -0.2]).expand(40_000, 2)
    q = (-(z[0].double() - codebook.weight.double()).square().sum(-1)).softmax(0)
    out = codebook(z)
    found = out.indices.bincount(minlength=4).double() / 40_000
    torch.testing.assert_close(found, q, rtol=0, atol=4 * 0.5 / math.sqrt(40_000))
    wanted = (q * (q * 4).log()).sum()
    torch.testing.assert_close(out.loss.double(), wanted, rtol=1e-5, atol=1e-6)
    out.quantised.sum().backward()
    assert codebook.weight.grad.abs().sum() > 0
    summed = GumbelCodebook(4, 2, compat=True)
    summed.weight.data.copy_(codebook.weight)
    torch.testing.assert_close(summed(z[:10]).loss.double(), 10 * wanted, rtol=1e-5, atol=1e-6)


def test_gumbel_takes_the_nearest_code_outside_of_training_except_in_compat() -> None:
    torch.manual_seed(0)
    codebook, z = GumbelCodebook(8, 3).eval(), drawn(500, 3)
    out = codebook(z)
    assert torch.equal(out.indices, torch.cdist(z, codebook.weight).argmin(1)) and out.loss == 0
    original = GumbelCodebook(8, 3, compat=True).eval()
    first, second = original(z), original(z)
    assert not torch.equal(first.indices, second.indices)
    assert torch.equal(first.quantised, original.weight[first.indices])


def test_spherical_codes_are_nearest_by_angle_and_blind_to_length() -> None:
    torch.manual_seed(0)
    codebook, z = SphericalCodebook(9, 5), drawn(60, 5)
    out = codebook(z)
    cosine = torch.nn.functional.cosine_similarity(z[:, None].double(), codebook.weight.double(), dim=-1)
    assert torch.equal(out.indices, cosine.argmax(1))
    assert torch.equal(out.indices, codebook(7 * z).indices)
    torch.testing.assert_close(out.quantised.norm(dim=-1), torch.ones(60))


@pytest.mark.parametrize("mode", ["sample", "sample_onehot", "sample_soft"])
def test_spherical_draws(mode: str) -> None:
    torch.manual_seed(0)
    codebook = SphericalCodebook(3, 2, mode=mode, temperature=2.0)
    z = torch.tensor([1.0, 0.5]).expand(20_000, 2).clone().requires_grad_()
    out = codebook(z)
    logits = -2.0 * (torch.nn.functional.normalize(z[0], dim=0) - codebook.codes()).square().sum(1)
    found = out.indices.bincount(minlength=3) / 20_000
    torch.testing.assert_close(found, logits.softmax(0), rtol=0, atol=0.02)
    out.quantised[:, 0].sum().backward()
    assert z.grad.abs().sum() > 0
    if mode != "sample_soft":
        torch.testing.assert_close(out.quantised, codebook.lookup(out.indices))


@pytest.mark.parametrize("make", [GumbelCodebook, lambda k, d: SphericalCodebook(k, d, mode="sample_soft")])
def test_autocast_does_not_reach_mixtures(make: type[GumbelCodebook]) -> None:
    torch.manual_seed(0)
    codebook, z = make(8, 4), drawn(30, 4)
    torch.manual_seed(1)
    plain = codebook(z).quantised
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = codebook(z).quantised
    assert found.dtype == torch.float32 and torch.equal(found, plain)


@pytest.mark.parametrize("flavor", ["classic", "ema"])
def test_residual_codes_add_up_and_pass_the_gradient_once(flavor: str) -> None:
    torch.manual_seed(0)
    codebook, z = ResidualCodebook(8, 4, stages=3, flavor=flavor).eval(), drawn(5, 6, 4).requires_grad_()
    out = codebook(z)
    assert out.indices.shape == (5, 6, 3) and out.perplexity.shape == out.usage.shape == (3,)
    assert torch.equal(out.quantised, codebook.lookup(out.indices))
    rest = z.detach()
    for i, stage in enumerate(codebook.stages):
        assert torch.equal(stage(rest).indices, out.indices[..., i])
        rest = rest - stage.lookup(out.indices[..., i])
    out.quantised.sum().backward()
    assert bool((z.grad == 1).all())


def test_each_residual_stage_leaves_less_over() -> None:
    torch.manual_seed(0)
    codebook, z = ResidualCodebook(16, 4, stages=3), drawn(2000, 4)
    for _ in range(60):
        codebook(z)
    indices, rest = codebook.eval()(z).indices, [z.square().mean().item()]
    left = z
    for i, stage in enumerate(codebook.stages):
        left = left - stage.lookup(indices[:, i])
        rest.append(left.square().mean().item())
    assert rest[1] < 0.5 * rest[0] and rest[2] < 0.6 * rest[1] and rest[3] < 0.7 * rest[2]


def test_product_codes_are_those_of_the_slices() -> None:
    torch.manual_seed(0)
    codebook, z = ProductCodebook(8, 6, parts=3, flavor="classic"), drawn(5, 7, 6)
    out = codebook(z)
    assert out.indices.shape == (5, 7, 3)
    assert torch.equal(out.quantised, codebook.lookup(out.indices))
    for i, part in enumerate(codebook.parts):
        assert torch.equal(part(z[..., 2 * i : 2 * i + 2]).indices, out.indices[..., i])


def test_fsq_values_indices_and_gradients() -> None:
    levels = (3, 4, 5)
    codebook = FSQ(levels)
    everything = torch.arange(60)
    values = codebook.lookup(everything)
    assert len({tuple(v) for v in values.tolist()}) == 60
    for i, level in enumerate(levels):
        wanted = torch.arange(level) - level // 2
        assert torch.equal(values[:, i].unique(), wanted / (level // 2))
    assert torch.equal(values[1] - values[0], torch.tensor([1.0, 0.0, 0.0]))
    z = (2 * drawn(4000, 3)).requires_grad_()
    out = codebook(z)
    assert torch.equal(out.quantised, codebook.lookup(out.indices)) and out.loss == 0
    assert out.usage == 1 and out.perplexity > 30
    out.quantised.sum().backward()
    wanted = [
        (1 - math.tanh(z[0, i].item() + s) ** 2) * h for i, s, h in ((0, 0.0, 1.001), (2, 0.0, 2.002 / 2))
    ]
    assert z.grad[0, 0].item() == pytest.approx(wanted[0], rel=1e-4)
    assert z.grad[0, 2].item() == pytest.approx(wanted[1], rel=1e-4)
    assert torch.equal(codebook(torch.full((1, 3), 50.0)).indices, torch.tensor([59]))
    assert torch.equal(codebook(torch.full((1, 3), -50.0)).indices, torch.tensor([0]))


@pytest.mark.parametrize(
    ("flavor", "kind", "options"),
    [
        ("classic", Codebook, {"commitment": 1.0}),
        ("ema", EMACodebook, {"decay": 0.8}),
        ("gumbel", GumbelCodebook, {}),
        ("spherical", SphericalCodebook, {}),
        ("residual", ResidualCodebook, {"stages": 2}),
        ("product", ProductCodebook, {"parts": 3}),
        ("fsq", FSQ, {"levels": (4, 3)}),
    ],
)
def test_flavors(flavor: str, kind: type, options: dict[str, object]) -> None:
    dim = 2 if flavor == "fsq" else 3
    made = make_codebook(flavor, 12, dim, **options)
    assert type(made) is kind and (made.num_codes, made.dim) == (12, dim)
    assert made(drawn(4, dim)).quantised.shape == (4, dim)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_codebook("best", 4, 3), "flavor must be one of classic, ema, .*fsq, got 'best'"),
        (
            lambda: make_codebook("ema", 4, 3, size=1),
            "make_codebook: options must be those of 'ema', got: .*size",
        ),
        (
            lambda: make_codebook("fsq", 9, 2, levels=(3, 4)),
            "levels must give 9 codes of width 2, got 12 codes",
        ),
        (lambda: ProductCodebook(4, 5, parts=2), "ProductCodebook: dim must be a multiple of 2 parts, got 5"),
        (lambda: ResidualCodebook(4, 5, stages=0), "ResidualCodebook: stages must be an integer >= 1"),
        (
            lambda: ResidualCodebook(4, 5, flavor="gumbel"),
            "ResidualCodebook: flavor must be one of classic, ema",
        ),
        (lambda: ProductCodebook(4, 4)(torch.zeros(2, 3)), r"ProductCodebook: z must be \(..., 4\)"),
        (lambda: ResidualCodebook(4, 4).lookup(torch.zeros(2, 3).long()), r"indices must be \(..., 2\)"),
        (lambda: FSQ((2, 3)), "FSQ: levels must hold integers >= 3"),
        (lambda: FSQ((3, 3))(torch.zeros(2, 3)), r"FSQ: z must be \(..., 2\)"),
        (lambda: ResidualCodebook(4, 4)(torch.zeros(2, 3)), r"ResidualCodebook: z must be \(..., 4\)"),
        (lambda: FSQ((3, 3)).lookup(torch.tensor([9])), r"FSQ: indices must lie in \[0, 9\)"),
    ],
)
def test_wrong_input(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_rows_in_double_precision_are_refused_in_training_too():
    with pytest.raises(ValueError, match="GumbelCodebook: z must be torch.float32"):
        GumbelCodebook(4, 8).train()(torch.randn(3, 8, dtype=torch.float64))


def test_fsq_keeps_what_is_not_a_number_and_refuses_too_many_codes() -> None:
    out = FSQ((3, 4))(torch.tensor([[float("nan"), 0.0], [1.0, 1.0]]))
    assert out.quantised.isnan().tolist() == [[True, False], [False, False]]
    assert ((out.indices >= 0) & (out.indices < 12)).all()
    with pytest.raises(ValueError, match=r"levels must have a product below 2\^31"):
        FSQ([8] * 30)
