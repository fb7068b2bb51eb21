"""Training of autoencoders with discrete latents: `fastdiff train vqvae`, `fastdiff train hierarchical-vqvae`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff import systems
from fastdiff.systems.vqvae import VQVAE, HierarchicalVQVAE, Reconstruction
from fastdiff.training.batches import ImageBatches
from fastdiff.training.config import RunConfig
from fastdiff.training.datasets import Dataset
from fastdiff.training.export import run_facts
from fastdiff.training.latents import images
from fastdiff.training.preview import write_pairs
from fastdiff.training.processes import Processes
from fastdiff.training.task import Task, Trained, seeded

Flavor = Literal["classic", "ema", "gumbel", "spherical", "residual", "product", "fsq"]


@dataclass(frozen=True)
class VQVAENetwork:
    """Options of `fastdiff.systems.vqvae.VQVAE`; the channels come from the data."""

    num_codebook: int = 64
    """Number of codes."""
    dim_codebook: int = 32
    """Width of a code."""
    shape: Literal["cifar", "mini_imagenet"] = "cifar"
    """Halve the size once (cifar) or twice (mini_imagenet)."""
    codebook_flavor: Flavor = "ema"
    """Kind of codebook."""
    codebook_options: dict[str, int | float | list[int]] = field(default_factory=dict)
    """Further options of the codebook, such as `decay 0.99 revive 0.01`, or `levels 8 5 5 5` of fsq."""


@dataclass(frozen=True)
class HierarchicalNetwork:
    """Options of `fastdiff.systems.vqvae.HierarchicalVQVAE`; the channels come from the data."""

    levels: int = 3
    """Maps of codes, each half the size of the one before."""
    width: int = 128
    """Channels of the networks."""
    layers: int = 2
    """Residual blocks per encoder and decoder (group_norm: per resolution)."""
    block: Literal["group_norm", "convnext", "resnet"] = "group_norm"
    """Kind of residual block."""
    mult: int = 2
    """How many times wider the lower resolution of a group_norm network is."""
    groups: int = 32
    """Groups of a group norm."""
    attention_levels: tuple[int, ...] = ()
    """Levels (0: finest) of a group_norm network with attention."""
    heads: int = 1
    """Heads of an attention."""
    dropout: float = 0.1
    """Dropout in the residual blocks of a group_norm network, [0, 1)."""
    num_codebook: int = 512
    """Number of codes of each level."""
    dim_codebook: int = 64
    """Width of a code."""
    codebook_flavor: Flavor = "ema"
    """Kind of codebook."""
    codebook_options: dict[str, int | float | list[int]] = field(default_factory=dict)
    """Further options of the codebooks, such as `decay 0.99 revive 0.01`, or `levels 8 5 5 5` of fsq."""


@dataclass(frozen=True)
class AutoencoderConfig(RunConfig):
    """What runs of both have; nothing is averaged unless asked for, as codes follow the weights of the moment."""

    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    ema_decay: float = 0.0
    """Decay of the averaged weights; 0: the weights themselves."""


@dataclass(frozen=True)
class VQVAEConfig(AutoencoderConfig):
    """Train a VQ-VAE: mean square error of the reconstruction plus the loss of the codebook.

    Example: fastdiff train vqvae --data fashion-mnist --size 32 --out runs/vqvae
    """

    network: VQVAENetwork = field(default_factory=VQVAENetwork)
    """The network."""


@dataclass(frozen=True)
class HierarchicalVQVAEConfig(AutoencoderConfig):
    """Train a hierarchical VQ-VAE: mean square error of the reconstruction plus the losses of all codebooks.

    Example: fastdiff train hierarchical-vqvae --data fashion-mnist --size 32 --out runs/hierarchical
    """

    network: HierarchicalNetwork = field(default_factory=HierarchicalNetwork)
    """The network."""


class AutoencoderTask(Task):
    """An autoencoder with discrete latents on images in [-1, 1]."""

    kind: type[nn.Module]

    def __init__(
        self, config: VQVAEConfig | HierarchicalVQVAEConfig, data: Dataset, processes: Processes
    ) -> None:
        super().__init__(config, data, processes)
        self.config = config
        self.batches = ImageBatches(data, config, processes.rank, processes.world)
        self._told: dict[str, Tensor] = {}

    def network(self) -> nn.Module:
        """The autoencoder for the data's channels, with the weights of `config.init` where one is named.

        Raises:
            ValueError: when that is another kind of network.
        """
        channels, options = self.data.images.shape[1], self.config.to_dict()["network"]
        net = seeded(lambda: self.kind(channels=channels, **options), self.config.seed)
        if self.config.init is not None:
            first = systems.load(self.config.init)
            if type(first) is not self.kind or first.config != net.config:
                raise ValueError(
                    f"train: init must be a {self.kind.__name__} with the same options, got {self.config.init}"
                )
            net.load_state_dict(first.state_dict())
        return net

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean square error plus the loss of the codebooks."""
        x = self.batches.images(step).x0.to(self.processes.device)
        out: Reconstruction = net(x.contiguous(memory_format=torch.channels_last))
        error = functional.mse_loss(out.images.float(), x)
        self._told = {"error": error.detach(), "perplexity": out.perplexity, "usage": out.usage}
        return error + out.loss_latent

    def facts(self) -> dict[str, float]:
        """Error, perplexity and usage of the last batch; of several codebooks, numbered in their order."""
        told: dict[str, float] = {}
        for name, value in self._told.items():
            several = {f"{name}_{i}": v for i, v in enumerate(value.flatten().tolist())}
            told |= several if value.dim() else {name: float(value)}
        return told

    def model(self, net: nn.Module, step: int) -> Trained:
        """The autoencoder, with the facts of the run."""
        net.meta = run_facts(step, self.config.to_dict())  # type: ignore[assignment]
        return net

    def preview(self, model: Trained, path: Path) -> None:
        """Write images of the data and their reconstructions."""
        if isinstance(model, nn.Module):
            x = images(self.data.images[:20]).to(self.processes.device)
            with torch.no_grad():
                write_pairs(x, model(x.contiguous(memory_format=torch.channels_last)).images, path)


class VQVAETask(AutoencoderTask):
    """What `fastdiff train vqvae` trains."""

    kind = VQVAE


class HierarchicalVQVAETask(AutoencoderTask):
    """What `fastdiff train hierarchical-vqvae` trains."""

    kind = HierarchicalVQVAE
