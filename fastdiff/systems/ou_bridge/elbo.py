"""The evidence lower bound of a bridge over latents, its terms batched over the times.

    log p(x) >= -1/2 (log 2 pi + |x - x^|^2) - sum_t L_t        x^ is decoded from the codes of z_e

    L_t = beta_t / (2 alpha_t (1 - alpha_bar_t)) |eps - eps_theta(x_t, t)|^2,   t = 1 ... T - 1

the part of KL(q(x_{t-1} | x_t, x_0) | p(x_{t-1} | x_t)) that depends on the network, as the published evaluation counts
it (one log 2 pi per image, no constants of the variances, none of the end). Compare bounds of one VQ-VAE only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Stream
from fastdiff.systems.ou_bridge.bridge import DiffusionBridge
from fastdiff.systems.ou_bridge.latent import LatentBridge
from fastdiff.systems.ou_bridge.states import state_of


@dataclass(frozen=True)
class Elbo:
    """The parts of the bound, (B,) each, in nats.

    Attributes:
        reconstruction: -1/2 (log 2 pi + |x - x^|^2).
        diffusion: sum of the L_t, >= 0.
    """

    reconstruction: Tensor
    diffusion: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, (B,)."""
        return self.reconstruction - self.diffusion


@torch.no_grad()
def diffusion_terms(
    bridge: DiffusionBridge, x0: Tensor, *, seeds: rng.Seeds | None = None, times_per_call: int = 64
) -> Tensor:
    """L_t of data x0 (B, ...) for t = 0 ... T - 1, (B, T) float32; entry 0, the step to the data, is 0.

    Args:
        bridge: Process and network; a label t names level t in both.
        x0: The data.
        seeds: (B,) seeds of the noise, one noise per time; 0 ... B - 1 by default.
        times_per_call: Times of one sample that go through the network together.

    Raises:
        TypeError, ValueError: for an argument that does not fit.
    """
    x0 = state_of(x0)
    if seeds is not None and len(seeds) != len(x0):
        raise ValueError(f"diffusion_terms: seeds must be those of {len(x0)} samples, got {len(seeds)}")
    if times_per_call < 1:
        raise ValueError(f"diffusion_terms: times_per_call must be >= 1, got {times_per_call}")
    drawn_by = torch.as_tensor(range(len(x0)) if seeds is None else seeds, dtype=torch.int64)
    weight = torch.from_numpy(bridge.process.loss_weight).to(x0)
    found = x0.new_zeros(len(x0), bridge.process.steps)
    first = 1 if bridge.compat else 0
    for i, image in enumerate(x0):
        for t in torch.arange(1, bridge.process.steps).split(times_per_call):
            eps = rng.normal(
                drawn_by[i].expand(len(t)), image.shape, row=t, stream=Stream.FORWARD, device=x0.device
            ).to(x0)
            # with `compat` a label names the level below it in training: its noise is what the network learned
            x_t = bridge.posterior_sample(image.expand_as(eps), t.to(x0.device).clamp(min=first), eps)
            error = (eps - bridge(x_t, t.to(x0.device)).to(eps)).square().flatten(1).sum(1)
            found[i, t] = weight[t] * error
    return found


@torch.no_grad()
def elbo(system: LatentBridge, images: Tensor, *, seeds: rng.Seeds | None = None) -> Elbo:
    """The bound of images (B, C, H, W) in [-1, 1]; the system is called as it is (put it into evaluation mode)."""
    latents = system.encode(images)
    decoded = system.decode(latents)
    squared = (images - decoded).square().flatten(1).sum(1)
    return Elbo(
        -0.5 * (torch.log(torch.tensor(2 * torch.pi)) + squared),
        diffusion_terms(system.bridge, latents, seeds=seeds).sum(1),
    )
