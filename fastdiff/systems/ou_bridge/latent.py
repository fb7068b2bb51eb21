"""A bridge over the latents of a VQ-VAE: what `fastdiff.sample` draws images from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.schedule import Schedule
from fastdiff.solvers import Anchor
from fastdiff.systems.ou_bridge.bridge import DiffusionBridge, betas_to_deltas
from fastdiff.systems.ou_bridge.prior_unet import PriorUNet
from fastdiff.systems.vqvae import VQVAE


class LatentBridge(nn.Module):
    """VQ-VAE and bridge: the bridge carries encoder outputs z_e to a target; only its end is quantised and decoded.

    `fastdiff.sample(system, steps)` returns images. Known regions (`x_init` and `mask`) may be given in pixels, and are
    then encoded: a latent is known where all pixels behind it are.

    Args:
        vqvae: options of the `VQVAE`.
        prior: options of the `PriorUNet`, without image_channels.
        num_steps: T.
        beta_start: of betas evenly spaced over the steps.
        beta_end: likewise.
        theta: pull towards the target.
        eta2: eta^2; eta^2 / (2 theta) should be the variance of the latents.
        target: one number for each latent channel (their means), or one for all.
        image_size: height and width of the images.

    Raises:
        ValueError: for parts that do not fit each other.
    """

    prediction = "eps"
    num_classes = 0

    def __init__(
        self,
        vqvae: Mapping[str, Any],
        prior: Mapping[str, Any],
        *,
        num_steps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        theta: float = 1.0,
        eta2: float = 2.0,
        target: Sequence[float] | float = 0.0,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        goal = [float(target)] if isinstance(target, (int, float)) else [float(v) for v in target]
        self.config: dict[str, Any] = {
            **{"vqvae": dict(vqvae), "prior": dict(prior), "num_steps": num_steps, "image_size": image_size},
            **{"beta_start": beta_start, "beta_end": beta_end, "theta": theta, "eta2": eta2, "target": goal},
        }
        self.vqvae = VQVAE(**vqvae)
        width, side = self.vqvae.config["dim_codebook"], self.vqvae.codes_across(image_size)
        net = PriorUNet(image_channels=width, **prior)
        if len(goal) not in (1, width):
            raise ValueError(f"LatentBridge: target must have 1 or {width} numbers, got {len(goal)}")
        if side % net.reduction:
            raise ValueError(
                f"LatentBridge: image_size must give a multiple of {net.reduction} codes across, which the prior "
                f"halves, got {side} of {image_size} pixels"
            )
        self.image_shape = (self.vqvae.config["channels"], image_size, image_size)
        self.shape = self.latent_shape = (width, side, side)
        betas = torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64)
        self.bridge = DiffusionBridge(
            net,
            betas_to_deltas(betas.numpy(), theta),
            num_steps,
            theta,
            eta2,
            torch.tensor(goal).reshape(-1, 1, 1),
            shape=self.shape,
        )

    @property
    def schedule(self) -> Schedule:
        """The bridge's."""
        return self.bridge.schedule

    @property
    def anchor(self) -> Anchor:
        """The bridge's."""
        return self.bridge.anchor

    @property
    def space(self) -> LatentBridge:
        """What makes images of latents: this module."""
        return self

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in latents x (B, D, h, w) at times t (B,)."""
        return self.bridge(x, t)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to z_e (B, D, h, w), not quantised."""
        return self.vqvae.encoded(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D, h, w) to their nearest codes and those to images (B, C, H, W), clamped to [-1, 1]."""
        z_e = latents.to(self.vqvae.dtype)
        return self.vqvae.decode(self.vqvae.quantise(z_e).quantised).clamp(-1.0, 1.0)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """A mask (..., H, W) of known pixels to one of known latents (..., h, w), see `VQVAE.known_codes`."""
        return self.vqvae.known_codes(mask)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) through the VQ-VAE alone."""
        return self.decode(self.encode(images))
