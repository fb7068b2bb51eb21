"""Training of diffusion networks: data readers, the loop, checkpoints, logs."""

from __future__ import annotations

from fastdiff.training.config import NetworkConfig, RunConfig, TrainConfig
from fastdiff.training.datasets import Dataset, read_dataset
from fastdiff.training.export import model_of_run
from fastdiff.training.loop import train
from fastdiff.training.stopping import TrainingStopped
from fastdiff.training.task import DenoisingTask, Task

__all__ = [
    "Dataset",
    "DenoisingTask",
    "NetworkConfig",
    "RunConfig",
    "Task",
    "TrainConfig",
    "TrainingStopped",
    "model_of_run",
    "read_dataset",
    "train",
]
