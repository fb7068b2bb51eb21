"""Training of a gated PixelCNN over the codes of a VQ-VAE: `fastdiff train pixelcnn`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdiff.systems.pixelcnn import LatentPixelCNN
from fastdiff.training.batches import ImageBatches
from fastdiff.training.config import RunConfig
from fastdiff.training.datasets import Dataset
from fastdiff.training.export import run_facts
from fastdiff.training.latents import load_vqvae, weights_digest
from fastdiff.training.preview import write_images
from fastdiff.training.processes import Processes
from fastdiff.training.task import Task, Trained, seeded


@dataclass(frozen=True)
class PixelCNNNetwork:
    """Options of `fastdiff.systems.pixelcnn.GatedPixelCNN`; the number of codes comes from the VQ-VAE."""

    dim: int = 64
    """Channels of each stack."""
    n_layers: int = 15
    """Layers."""
    n_classes: int = 0
    """Classes of the labels that the prior is given; 0: none."""


@dataclass(frozen=True)
class PixelCNNConfig(RunConfig):
    """Train a gated PixelCNN over the codes of a VQ-VAE; the loss is in nats per code.

    Example: fastdiff train pixelcnn --vqvae runs/vqvae/model --data fashion-mnist --size 32 --out runs/pixelcnn
    """

    vqvae: str = ""
    """The trained VQ-VAE: a folder or a known name. Required."""
    network: PixelCNNNetwork = field(default_factory=PixelCNNNetwork)
    """The prior."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ValueError: naming the option.
        """
        super().__post_init__()
        self._require(bool(self.vqvae), "vqvae", "name a trained VQ-VAE")
        self._require(self.init is None, "init", "be None here: a run starts from its VQ-VAE")


class PixelCNNTask(Task):
    """A `LatentPixelCNN` whose VQ-VAE is kept as it is."""

    def __init__(self, config: PixelCNNConfig, data: Dataset, processes: Processes) -> None:
        super().__init__(config, data, processes)
        self.config = config
        self.batches = ImageBatches(data, config, processes.rank, processes.world)

    def network(self) -> nn.Module:
        """A system around the trained VQ-VAE.

        Raises:
            ValueError: for classes that the data does not have.
        """
        classes, vqvae = self.config.network.n_classes, load_vqvae(self.config.vqvae, self.data)
        self.origin = {"vqvae": weights_digest(vqvae)}
        if classes not in (0, self.data.num_classes):
            raise ValueError(f"train: n_classes must be 0 or {self.data.num_classes}, got {classes}")
        options = self.config.to_dict()["network"]
        size = self.data.images.shape[-1]
        system = seeded(lambda: LatentPixelCNN(vqvae.config, options, image_size=size), self.config.seed)
        system.vqvae.load_state_dict(vqvae.state_dict())
        system.vqvae.requires_grad_(False)
        return system

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean negative log-likelihood of a code, in nats."""
        part, device = self.batches.images(step), self.processes.device
        labels = None
        if self.config.network.n_classes and self.data.labels is not None:
            labels = self.data.labels[part.picked].to(device)
        return net(part.x0.to(device), labels).mean()

    def model(self, net: nn.Module, step: int) -> Trained:
        """The system, with the facts of the run."""
        net.meta = run_facts(step, self.config.to_dict())  # type: ignore[assignment]
        return net

    def preview(self, model: Trained, path: Path) -> None:
        """Write a grid of samples."""
        system: Any = model
        classes = self.config.network.n_classes
        write_images(system.sample(40, labels=torch.arange(40) % classes if classes else None), path)
