"""Training of bridges over the latents of a VQ-VAE: `fastdiff train ou-bridge`.

In two stages the VQ-VAE stays as it was trained and the bridge learns its encoder outputs z_e. Jointly, everything
learns from one loss (the bound of Cohen et al. 2022, arXiv 2202.04895):

    |x - x^|^2 + codebook loss          reconstruction through the codes
    + prior |eps - eps_theta|^2         the bridge on z_e, whose gradient reaches the encoder
    + regularity (-log q(z_q | z_e))    q = softmax(-|z_e - e|^2 / tau): z_e lies near its code, far from the others
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff import rng
from fastdiff.nn.codebook.quantised import CodeTable
from fastdiff.rng import Stream
from fastdiff.systems.ou_bridge import LatentBridge
from fastdiff.systems.vqvae import VQVAE
from fastdiff.training.batches import ImageBatches
from fastdiff.training.config import RunConfig
from fastdiff.training.datasets import Dataset
from fastdiff.training.export import run_facts
from fastdiff.training.latents import latent_moments, load_vqvae, weights_digest
from fastdiff.training.preview import write_images
from fastdiff.training.processes import Processes
from fastdiff.training.task import Task, Trained, seeded


@dataclass(frozen=True)
class PriorNetwork:
    """Options of `fastdiff.systems.ou_bridge.PriorUNet`; the channels come from the VQ-VAE."""

    n_channels: int = 64
    """Width of the first level."""
    ch_mults: tuple[int, ...] = (1, 2)
    """Factor from each level's width to the next one's."""
    is_attn: tuple[bool, ...] = (False, True)
    """Levels with attention."""
    n_blocks: int = 2
    """Residual blocks per level."""


@dataclass(frozen=True)
class JointLoss:
    """Weights of the joint loss."""

    prior: float = 0.1
    """Weight of the bridge's loss."""
    regularity: float = 0.01
    """Weight of -log q(z_q | z_e), in nats per latent."""
    temperature: float = 0.1
    """tau of q, in units of the squared distance."""

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ValueError: naming the weight.
        """
        for name, least in (("prior", 0.0), ("regularity", 0.0), ("temperature", 1e-6)):
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise ValueError(f"JointLoss: {name} must be finite and >= {least:g}, got {value}")


@dataclass(frozen=True)
class OUBridgeConfig(RunConfig):
    """Train a diffusion bridge over the latents of a VQ-VAE.

    Example: fastdiff train ou-bridge --vqvae runs/vqvae/model --data fashion-mnist --size 32 --out runs/bridge
    """

    vqvae: str = ""
    """The trained VQ-VAE: a folder or a known name. Required."""
    joint: bool = False
    """Train the VQ-VAE along with the bridge instead of keeping it as it is."""
    weights: JointLoss = field(default_factory=JointLoss)
    """Parts of the joint loss."""
    network: PriorNetwork = field(default_factory=PriorNetwork)
    """The bridge's network."""
    timesteps: int = 1000
    """Steps T of the bridge."""
    beta_start: float = 1e-4
    """First of the evenly spaced betas."""
    beta_end: float = 0.02
    """Last of them."""
    theta: float = 1.0
    """Pull of the bridge towards its target, the mean of each latent channel."""

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ValueError: naming the option.
        """
        super().__post_init__()
        self._require(bool(self.vqvae), "vqvae", "name a trained VQ-VAE")
        self._require(self.init is None, "init", "be None here: a run starts from its VQ-VAE")
        self._require(self.timesteps >= 1, "timesteps", "be >= 1")
        self._require(0 < self.beta_start <= self.beta_end < 1, "beta_start", "be > 0 and <= beta_end < 1")
        self._require(self.theta > 0, "theta", "be > 0")


class OUBridgeTask(Task):
    """A `LatentBridge`: bridge alone, or bridge and VQ-VAE."""

    def __init__(self, config: OUBridgeConfig, data: Dataset, processes: Processes) -> None:
        super().__init__(config, data, processes)
        self.config = config
        self.batches = ImageBatches(data, config, processes.rank, processes.world)
        self._told: dict[str, Tensor] = {}

    def network(self) -> nn.Module:
        """A system around the trained VQ-VAE, its target and scale those of the data's latents."""
        c, vqvae = self.config, load_vqvae(self.config.vqvae, self.data)
        self.origin = {"vqvae": weights_digest(vqvae)}
        target, variance = latent_moments(vqvae, self.data)
        system = seeded(
            lambda: LatentBridge(
                vqvae.config,
                c.to_dict()["network"],
                num_steps=c.timesteps,
                beta_start=c.beta_start,
                beta_end=c.beta_end,
                theta=c.theta,
                eta2=2 * c.theta * variance,
                target=target,
                image_size=self.data.images.shape[-1],
            ),
            c.seed,
        )
        system.vqvae.load_state_dict(vqvae.state_dict())
        system.vqvae.requires_grad_(c.joint)
        return Trainee(system, c)

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The bridge's loss, or the joint one."""
        part, device = self.batches.images(step), self.processes.device
        u = rng.uniform(part.seeds, (1,), stream=Stream.TIME, dtype=torch.float64)[:, 0]
        t = (u * self.config.timesteps).long().clamp_(max=self.config.timesteps - 1)
        loss, self._told = net(part.x0.to(device), t.to(device), part.seeds.to(device))
        return loss

    def facts(self) -> dict[str, float]:
        """Parts of the loss in the last step."""
        return {name: float(value) for name, value in self._told.items()}

    def model(self, net: nn.Module, step: int) -> Trained:
        """The system, with the facts of the run."""
        system: Any = net.system
        system.meta = run_facts(step, self.config.to_dict())
        return system

    def preview(self, model: Trained, path: Path) -> None:
        """Write a grid of samples."""
        from fastdiff.sampling import sample

        write_images(sample(model, 50, num=40), path)  # type: ignore[arg-type]


class Trainee(nn.Module):
    """A system with its training loss as its forward, for the loop and for data-parallel wrappers.

    Args:
        system: what is trained.
        config: the run.
    """

    system: LatentBridge

    def __init__(self, system: LatentBridge, config: OUBridgeConfig) -> None:
        super().__init__()
        self.system, self.joint, self.weights = system, config.joint, config.weights

    def train(self, mode: bool = True) -> Trainee:
        """Training mode; a VQ-VAE that is kept as it is stays in evaluation mode."""
        super().train(mode)
        if not self.joint:
            self.system.vqvae.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, its parts) of images x (B, C, H, W) at times t (B,), noise from seeds (B,)."""
        system = self.system
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            latents = system.encode(x).float()
        noise = rng.normal(seeds, latents.shape[1:], stream=Stream.FORWARD)
        prior = system.bridge.compute_loss(latents, t, noise)
        if not self.joint:
            return prior, {"prior": prior.detach()}
        found = system.vqvae.quantise(latents)
        error = functional.mse_loss(system.vqvae.decode(found.quantised).float(), x)
        irregular = irregularity(system.vqvae, latents, found.indices, self.weights.temperature)
        loss = error + found.loss + self.weights.prior * prior + self.weights.regularity * irregular
        parts = {"error": error, "prior": prior, "irregularity": irregular, "perplexity": found.perplexity}
        return loss, {name: value.detach() for name, value in parts.items()}


def irregularity(vqvae: VQVAE, latents: Tensor, indices: Tensor, temperature: float) -> Tensor:
    """Mean of -log q(z_q | z_e) of the codes chosen, in nats; q = softmax(-|z_e - e|^2 / temperature).

    Args:
        vqvae: whose codebook; it must have one table of codes.
        latents: z_e (B, D, h, w).
        indices: (B, h, w) the codes chosen.
        temperature: > 0.

    Raises:
        TypeError: for a codebook that is not a single table.
    """
    table = vqvae.codebook
    if not isinstance(table, CodeTable):
        raise TypeError(f"train: joint training must have one table of codes, got {type(table).__name__}")
    logits = -table.distances(latents.permute(0, 2, 3, 1)) / temperature
    return functional.cross_entropy(logits.flatten(0, 2), indices.flatten())
