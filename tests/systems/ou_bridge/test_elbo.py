"""The bound: terms batched over times equal those of one time after another, and their closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff import rng
from fastdiff.rng import Stream
from fastdiff.systems.ou_bridge import DiffusionBridge, HoDiffusion, LatentBridge, diffusion_terms, elbo

DELTA = torch.linspace(0.01, 0.2, 9, dtype=torch.float64)


@pytest.mark.parametrize("compat", [False, True])
def test_terms_are_those_of_single_steps(compat: bool) -> None:
    """Also as KL between the two Gaussians of a step: |difference of means|^2 / (2 s^2 beta)."""
    torch.manual_seed(0)
    net = torch.nn.Conv1d(2, 2, 3, padding=1)
    bridge = DiffusionBridge(lambda x, t: net(x), DELTA, 9, 2.0, 0.5, 0.3 * (not compat), compat=compat)
    x0 = torch.randn(3, 2, 4)
    found = diffusion_terms(bridge, x0, seeds=[5, 6, 7], times_per_call=4)
    assert found.shape == (3, 9) and not found[:, 0].any()
    for t in range(1, 9):
        eps = rng.normal([5, 6, 7], (2, 4), row=t, stream=Stream.FORWARD)
        x_t = bridge.posterior_sample(x0, t, eps)
        with torch.no_grad():
            mine, true = (bridge.prior_onestep_moments(x_t, t, noise=e)[0] for e in (net(x_t), eps))
        kl = (mine - true).square().sum((1, 2)) / (2 * bridge.process.scale**2 * bridge.process.beta[t])
        torch.testing.assert_close(found[:, t], kl, atol=1e-4, rtol=1e-4)


def test_a_network_that_knows_the_noise_has_no_terms() -> None:
    """And one that answers 0 has beta / (2 alpha (1 - alpha_bar)) times the number of elements, in the mean."""
    bridge = HoDiffusion(lambda x, t: torch.zeros_like(x), DELTA, 9)
    found = diffusion_terms(bridge, torch.zeros(2, 2000)).double()
    alpha, bar = np.exp(-2 * DELTA.numpy()), np.exp(-2 * np.cumsum(DELTA.numpy()))
    wanted = 2000 * (1 - alpha) / (2 * alpha * (1 - bar))
    np.testing.assert_allclose(found.mean(0).numpy()[1:], wanted[1:], rtol=0.15)


def test_the_bound_adds_the_reconstruction() -> None:
    torch.manual_seed(0)
    vqvae = {"num_codebook": 8, "dim_codebook": 4, "channels": 1}
    prior = {"n_channels": 8, "ch_mults": (1,), "is_attn": (False,), "n_blocks": 1}
    system = LatentBridge(vqvae, prior, num_steps=6, image_size=8).eval()
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    found = elbo(system, images)
    squared = (images - system.reconstruct(images)).square().sum((1, 2, 3))
    torch.testing.assert_close(found.reconstruction, -0.5 * (np.log(2 * np.pi) + squared))
    torch.testing.assert_close(found.total, found.reconstruction - found.diffusion)
    assert (found.diffusion > 0).all()
    for wrong in ((2, 3, 8, 8), (2, 1, 7, 8)):
        with pytest.raises(ValueError, match="x must be .*H and W multiples of 2"):
            elbo(system, torch.zeros(wrong))
