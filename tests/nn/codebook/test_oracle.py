"""The same rows and codes given to vector-quantize-pytorch, where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastdiff.nn.codebook import FSQ, EMACodebook, ResidualCodebook, SphericalCodebook

vq = pytest.importorskip("vector_quantize_pytorch", reason="needs vector-quantize-pytorch (extra: oracles)")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def peer(codes: int, width: int, **options: Any) -> Any:
    defaults = {
        "decay": 0.9,
        "threshold_ema_dead_code": 0,
        "commitment_weight": 0.25,
        "rotation_trick": False,
    }
    return vq.VectorQuantize(dim=width, codebook_size=codes, **{**defaults, **options})


def twins(codes: int, width: int) -> tuple[Any, EMACodebook]:
    theirs, ours = peer(codes, width), EMACodebook(codes, width, decay=0.9, revive=0.0)
    first = drawn(codes, width, seed=9)
    theirs.codebook = first.clone()
    theirs._codebook.embed_avg.copy_(first)
    ours.weight.copy_(first)
    ours.ema_positions.copy_(first)
    return theirs, ours


def test_indices_codes_and_loss_outside_of_training() -> None:
    theirs, ours = twins(32, 8)
    z = drawn(4, 50, 8)
    quantised, indices, _ = theirs.eval()(z)
    out = ours.eval()(z)
    assert torch.equal(out.indices, indices)
    assert torch.equal(out.quantised, quantised)


def test_moving_averages_and_losses_of_ten_steps() -> None:
    theirs, ours = twins(16, 4)
    for step in range(10):
        z = drawn(4, 60, 4, seed=step)
        _, indices, loss = theirs(z.clone().requires_grad_())
        out = ours(z)
        assert torch.equal(out.indices, indices)
        torch.testing.assert_close(out.loss, loss.squeeze(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(ours.weight, theirs.codebook, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.ema_cluster_size, theirs._codebook.cluster_size[0])
    torch.testing.assert_close(ours.ema_positions, theirs._codebook.embed_avg[0], rtol=1e-4, atol=1e-5)


def test_gradient_to_the_rows() -> None:
    theirs, ours = twins(16, 4)
    a, b = (drawn(2, 30, 4).requires_grad_() for _ in range(2))
    quantised, _, loss = theirs(a)
    ((quantised**2).sum() + loss.sum()).backward()
    out = ours(b)
    ((out.quantised**2).sum() + out.loss).backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_cosine_indices() -> None:
    theirs, ours = peer(16, 4, use_cosine_sim=True).eval(), SphericalCodebook(16, 4)
    ours.weight.data.copy_(drawn(16, 4, seed=9))
    theirs.codebook = ours.codes().detach().clone()
    z = drawn(2, 200, 4)
    assert torch.equal(ours(z).indices, theirs(z)[1])


def test_residual_indices() -> None:
    theirs = vq.ResidualVQ(dim=4, num_quantizers=3, codebook_size=16, shared_codebook=False).eval()
    ours = ResidualCodebook(16, 4, stages=3).eval()
    for i, stage in enumerate(ours.stages):
        stage.weight.copy_(drawn(16, 4, seed=20 + i) / 2**i)
        theirs.layers[i].codebook = stage.weight.clone()
    z = drawn(2, 50, 4)
    quantised, indices, _ = theirs(z)
    out = ours(z)
    assert torch.equal(out.indices, indices)
    torch.testing.assert_close(out.quantised, quantised, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3, 4), (3, 3, 7)])
def test_fsq(levels: tuple[int, ...]) -> None:
    theirs, ours = vq.FSQ(list(levels)).eval(), FSQ(levels)
    z = 2 * drawn(3, 100, len(levels))
    quantised, indices = theirs(z)
    out = ours(z)
    assert torch.equal(out.indices, indices.long())
    torch.testing.assert_close(out.quantised, quantised)
    torch.testing.assert_close(ours.lookup(out.indices), theirs.indices_to_codes(indices))
