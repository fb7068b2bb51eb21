"""What a run trains: the network, the loss of a step, and the resulting model. The loop does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastdiff import systems
from fastdiff.model import Model, load, save
from fastdiff.nn import UNet
from fastdiff.schedule import Schedule
from fastdiff.training.batches import Batches
from fastdiff.training.config import RunConfig, TrainConfig
from fastdiff.training.datasets import Dataset
from fastdiff.training.export import run_facts
from fastdiff.training.loss import DenoisingLoss
from fastdiff.training.preview import write_preview
from fastdiff.training.processes import Processes

#: What a run ends as: a model to sample from, or one of `fastdiff.systems`.
Trained = Model | nn.Module
Net = TypeVar("Net", bound=nn.Module)


class Task(ABC):
    """A subclass says what is trained; everything random in a step must come from the step's number.

    Inside `loss` torch's own generator is seeded by the step, too (for dropout and the like).

    Args:
        config: the run.
        data: the images.
        processes: this process among the others.

    Attributes:
        origin: checksums of trained parts that `network` read, by the option that names them; a run goes on from the
            same ones only, wherever they lie by then.
    """

    def __init__(self, config: RunConfig, data: Dataset, processes: Processes) -> None:
        self.data, self.processes = data, processes
        self.origin: dict[str, str] = {}

    @abstractmethod
    def network(self) -> nn.Module:
        """The network to train, its first weights drawn from the run's seed. Parameters without gradient stay."""

    @abstractmethod
    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The loss of step `step` (from 0), a float32 scalar with gradient; `net` is called, or its methods are."""

    @abstractmethod
    def model(self, net: nn.Module, step: int) -> Trained:
        """The model or system that `net` (the averaged weights) is after `step` steps."""

    def save(self, model: Trained, folder: Path, dtype: str) -> None:
        """Write what `model` returned; of a system, its attribute `meta` goes into the file, too."""
        if isinstance(model, Model):
            save(model, folder, dtype=dtype)
        else:
            systems.save(model, folder, dtype=dtype)

    def facts(self) -> dict[str, float]:
        """Further numbers for a line of the log."""
        return {}

    def preview(self, model: Trained, path: Path) -> None:
        """Write a picture of what the model can do by now; of a model, a grid of samples."""
        if isinstance(model, Model):
            write_preview(model, path)


class DenoisingTask(Task):
    """A diffusion network on images."""

    def __init__(self, config: TrainConfig, data: Dataset, processes: Processes) -> None:
        super().__init__(config, data, processes)
        self.config = config
        self.schedule = Schedule.named(config.schedule, T=config.timesteps)
        self.batches = Batches(data, self.schedule, config, processes.rank, processes.world)
        self._loss = DenoisingLoss(self.schedule, config, processes.device)

    def network(self) -> nn.Module:
        """A UNet for the data's channels and classes, or the model `config.init`."""
        channels, options = self.data.images.shape[1], self.config.to_dict()["network"]
        net = seeded(
            lambda: UNet(in_channels=channels, num_classes=self.data.num_classes, **options), self.config.seed
        )
        return started_from(net, self.config.init)

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The weighted denoising loss."""
        return self._loss(net, self.batches(step))

    def model(self, net: nn.Module, step: int) -> Model:
        """Network, schedule, prediction and classes."""
        return Model(
            net,
            self.schedule,
            self.config.prediction,
            tuple(self.data.images.shape[1:]),  # type: ignore[arg-type]
            self.data.num_classes,
            self.data.class_names,
            meta=run_facts(step, self.config.to_dict()),
        )


def seeded(build: Callable[[], Net], seed: int) -> Net:
    """A network whose first weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def started_from(net: nn.Module, init: str | None) -> nn.Module:
    """`net` with the weights of the model `init`, where one is named.

    Raises:
        ValueError: when that model has another network.
    """
    if init is None:
        return net
    first = load(init).net
    if getattr(first, "config", None) != net.config:
        raise ValueError(f"train: init must be a model of the same network, got {init} with another")
    net.load_state_dict(first.state_dict())
    return net
