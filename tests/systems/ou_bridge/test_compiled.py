"""The network of a bridge run by the engine: the latents and images of eager torch."""

from __future__ import annotations

import torch

import fastdiff
from fastdiff.engine import explain
from fastdiff.systems.ou_bridge import LatentBridge


def system() -> LatentBridge:
    torch.manual_seed(0)
    vqvae = {"num_codebook": 16, "dim_codebook": 4, "channels": 1}
    prior = {"n_channels": 16, "ch_mults": (1, 2), "is_attn": (False, True), "n_blocks": 1}
    return LatentBridge(vqvae, prior, num_steps=20, image_size=16).eval()


def test_samples_are_those_of_eager_torch_with_and_without_a_mask() -> None:
    whole = system()
    known, mask = torch.rand(3, 1, 16, 16) * 2 - 1, torch.zeros(16, 16)
    mask[:, :8] = 1
    latents = {"x_init": whole.encode(known), "mask": whole.latent_mask(mask)}
    for given in ({}, latents):
        eager, compiled = (
            fastdiff.sample(whole.bridge, 6, num=3, solver="ddpm", compile=c, **given) for c in (False, True)
        )
        torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)
    images = fastdiff.sample(whole, 6, num=3, solver="ddpm", compile=True, x_init=known, mask=mask)
    assert images.shape == (3, 1, 16, 16) and torch.isfinite(images).all()


def test_torch_compile_takes_the_network_in_one_piece() -> None:
    net, x, t = system().bridge.denoising_model, torch.randn(2, 4, 8, 8), torch.tensor([3, 17])
    with torch.no_grad():
        compiled = torch.compile(net, backend="fastdiff", fullgraph=True)
        torch.testing.assert_close(compiled(x, t), net(x, t), atol=1e-4, rtol=1e-4)
    assert explain(net, x, t).eager == []
