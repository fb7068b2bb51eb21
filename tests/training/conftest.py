"""A tiny run that many tests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastdiff.training import Dataset, NetworkConfig, TrainConfig

TINY = NetworkConfig(channels=8, channel_mults=(1, 2), blocks=1, heads=2, groups=4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture
def shapes() -> Dataset:
    """60 pictures of 8 x 8: bright left half (class 0) or bright upper half (class 1), with some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = torch.randint(0, 60, (60, 1, 8, 8), generator=generator)
    images[labels == 0, :, :, :4] += 190
    images[labels == 1, :, :4, :] += 190
    return Dataset(images.to(torch.uint8), labels, ("left", "upper"), "shapes")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return tiny_config(tmp_path / "run")


def tiny_config(out: Path, **options: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "steps": 12,
        "batch_size": 8,
        "warmup": 3,
        "checkpoint_every": 4,
        "log_every": 4,
        "network": TINY,
        "amp": "off",
        "progress": False,
        "lr": 2e-3,
    }
    return TrainConfig(data="shapes", out=str(out), **{**defaults, **options})
