"""What one optimizer step sees (images, times, noise, labels), all derived from counters.

Image number j of the run (j = step * batch_size + position) is sample j modulo N of the permutation of epoch j // N,
and everything random about it comes from Philox with the seed `run seed + j`. So a step can be recreated at any
time, by any process, with no generator state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff import rng
from fastdiff.ops.philox import Stream
from fastdiff.schedule import Schedule
from fastdiff.training.config import RunConfig, TrainConfig
from fastdiff.training.datasets import Dataset

_SHUFFLE_KEY = 0x5EED_0F_DA7A


@dataclass
class ImageBatch:
    """One process's part of the images of a step.

    Attributes:
        x0: (b, C, H, W) float32 in [-1, 1].
        seeds: (b,) int64, one per image of the run.
        picked: (b,) int64, where the images stand in the data set.
    """

    x0: Tensor
    seeds: Tensor
    picked: Tensor


@dataclass
class Batch:
    """One process's part of a batch.

    Attributes:
        x0: (b, C, H, W) float32 in [-1, 1].
        t: (b,) int64 or float32 times.
        seeds: (b,) int64.
        labels: (b,) int64 with dropped ones replaced by the null class, or None.
        self_condition: whether this step feeds the network its own estimate.
    """

    x0: Tensor
    t: Tensor
    seeds: Tensor
    labels: Tensor | None
    self_condition: bool


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The permutation of `count` samples in one epoch of the run `seed`."""
    key = np.array([seed, _SHUFFLE_KEY], np.uint64)
    counter = np.array([0, 0, 0, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter)).permutation(count)


class ImageBatches:
    """Makes the images of any step.

    Args:
        data: the images.
        config: the run.
        rank: index of this process.
        world: number of processes; must divide the batch.
    """

    def __init__(self, data: Dataset, config: RunConfig, rank: int = 0, world: int = 1) -> None:
        if config.batch_size % world:
            raise ValueError(
                f"train: batch_size must be a multiple of {world} processes, got {config.batch_size}"
            )
        self.data, self.run = data, config
        self.part = config.batch_size // world
        self.offset = rank * self.part
        self._epoch = (-1, np.empty(0, np.int64))

    def images(self, step: int) -> ImageBatch:
        """The part of step `step` (from 0) that belongs to this process."""
        numbers = step * self.run.batch_size + self.offset + np.arange(self.part, dtype=np.int64)
        picked = torch.from_numpy(self._samples(numbers))
        seeds = torch.from_numpy(numbers) + self.run.seed
        x0 = self.data.images[picked].float().div_(127.5).sub_(1.0)
        if self.run.flip:
            mirrored = rng.uniform(seeds, (1, 1, 1), stream=Stream.FLIP) < 0.5
            x0 = torch.where(mirrored, x0.flip(-1), x0)
        return ImageBatch(x0, seeds, picked)

    def _samples(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        count = len(self.data)
        return np.array([self._order(int(j) // count)[int(j) % count] for j in numbers])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, epoch_order(self.run.seed, epoch, len(self.data)))
        return self._epoch[1]


class Batches(ImageBatches):
    """Makes the batch of any step of a diffusion network: images, times and labels.

    Args:
        data: the images.
        schedule: whose times are drawn.
        config: the run.
        rank: index of this process.
        world: number of processes; must divide the batch.
    """

    def __init__(
        self, data: Dataset, schedule: Schedule, config: TrainConfig, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(data, config, rank, world)
        self.schedule, self.config = schedule, config

    def __call__(self, step: int) -> Batch:
        """The part of step `step` (from 0) that belongs to this process."""
        found = self.images(step)
        first = rng.seed_tensor((step * self.config.batch_size + self.config.seed) % 2**64)
        labels = self._labels(found.picked, found.seeds)
        return Batch(found.x0, self._times(found.seeds, first), found.seeds, labels, self._coin(first))

    def _times(self, seeds: Tensor, first: Tensor) -> Tensor:
        c = self.config
        if c.time_draws == "stratified":
            place = torch.arange(self.offset, self.offset + self.part, dtype=torch.float64) / c.batch_size
            u = (rng.uniform(first, (1,), stream=Stream.TIME, dtype=torch.float64)[:, 0] + place) % 1.0
        else:
            u = rng.uniform(seeds, (1,), stream=Stream.TIME, dtype=torch.float64)[:, 0]
        if self.schedule.discrete:
            return (u * self.schedule.T).long().clamp_(max=self.schedule.T - 1)
        return (self.schedule.t_min + u * (self.schedule.t_max - self.schedule.t_min)).float()

    def _labels(self, picked: Tensor, seeds: Tensor) -> Tensor | None:
        if self.data.labels is None:
            return None
        drop = rng.uniform(seeds, (1,), stream=Stream.LABEL_DROP)[:, 0] < self.config.label_dropout
        return self.data.labels[picked].masked_fill(drop, self.data.num_classes)

    def _coin(self, first: Tensor) -> bool:
        if not self.config.network.self_condition:
            return False
        u = rng.uniform(first, (1,), stream=Stream.SELF_COND)
        return bool(u.item() < self.config.self_condition_prob)
