"""Training of diffusion networks: data readers, the loop, checkpoints, logs."""

from __future__ import annotations

from fastdiff.training.config import NetworkConfig, TrainConfig
from fastdiff.training.datasets import Dataset, read_dataset
from fastdiff.training.export import model_of_run
from fastdiff.training.loop import train
from fastdiff.training.stopping import TrainingStopped

__all__ = [
    "Dataset",
    "NetworkConfig",
    "TrainConfig",
    "TrainingStopped",
    "model_of_run",
    "read_dataset",
    "train",
]
