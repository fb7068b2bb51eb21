"""What the tests of recorded runs share: a small network, and the recorder that stands for that of a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from fastdiff import nn as fnn
from fastdiff.engine import recorder as recorders
from fastdiff.sampling import recorded
from fastdiff.schedule import Schedule

_spec = importlib.util.spec_from_file_location(
    "fake_recorder", Path(__file__).parents[1] / "engine" / "fake_recorder.py"
)
assert _spec is not None and _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

OPTIONS: dict[str, Any] = {
    "schedule": Schedule.cosine(100),
    "prediction": "eps",
    "shape": (1, 8, 8),
    "num": 3,
}
LABELS = {"labels": [0, 1, 2]}


def unet(**options: Any) -> fnn.UNet:
    torch.manual_seed(0)
    sizes = {"channels": 8, "channel_mults": (1,), "blocks": 1, "groups": 4, "num_classes": 3}
    net = fnn.UNet(in_channels=1, **{**sizes, **options}).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return net


@pytest.fixture(autouse=True)
def no_recordings() -> Iterator[None]:
    recorded.RECORDINGS.clear()
    recorded.REFUSED.clear()
    yield
    recorded.RECORDINGS.clear()
    recorded.REFUSED.clear()


def both(net: nn.Module, steps: int = 6, **options: Any) -> tuple[Tensor, Tensor, Any]:
    """(row by row, recorded, the recorder)."""
    given = {**OPTIONS, **options}
    plain = fastdiff.sample(net, steps, compile=False, **given)
    with recorders.using(fake.FakeRecorder(net)) as _:
        used = recorders.recorder_for(torch.device("cpu"))
        return plain, fastdiff.sample(net, steps, compile=True, **given), used
