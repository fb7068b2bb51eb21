"""A model small enough to sample in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fastdiff
from fastdiff.nn import UNet

NAMES = ("shirt", "shoe", "bag")


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained class-conditional model of 1x8x8 images with three classes."""
    torch.manual_seed(0)
    net = UNet(in_channels=1, num_classes=3, channels=8, channel_mults=(1,), groups=4, blocks=1, heads=1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    schedule = fastdiff.Schedule.named("cosine", T=50)
    folder: Path = tmp_path_factory.mktemp("models") / "toy"
    fastdiff.save(fastdiff.Model(net, schedule, "v", (1, 8, 8), 3, NAMES), folder)
    return str(folder)
