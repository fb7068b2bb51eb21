"""`compile=True` on a CPU: the network is compiled by the engine, once, and draws the same images."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff import engine
from fastdiff import nn as fnn
from fastdiff.sampling import carrying

OPTIONS = {"schedule": "cosine", "prediction": "v", "shape": (1, 8, 8), "labels": [0, 1, 2], "guidance": 2.0}


def test_images_are_those_of_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = fnn.UNet(in_channels=1, channels=16, channel_mults=(1, 2), blocks=1, groups=4, num_classes=3).eval()
    compiled, calls = engine.compile, []
    monkeypatch.setattr(carrying.engine, "compile", lambda net: calls.append(net) or compiled(net))
    plain = fastdiff.sample(net, 3, num=3, compile=False, **OPTIONS)
    for seed in (0, 0):
        got = fastdiff.sample(net, 3, num=3, seed=seed, compile=True, **OPTIONS)
        assert float((got - plain).abs().max()) <= 1e-4
    with torch.no_grad():
        for weight in net.parameters():
            weight.data.mul_(0.8)
    plain = fastdiff.sample(net, 3, num=3, compile=False, **OPTIONS)
    got = fastdiff.sample(net, 3, num=3, compile=True, **OPTIONS)
    assert float((got - plain).abs().max()) <= 1e-4
    assert calls == [net]


def test_a_bare_function_is_refused() -> None:
    with pytest.raises(ValueError, match="no torch module"):
        fastdiff.sample(lambda x, t, labels: x, 3, num=3, compile=True, **{**OPTIONS, "guidance": None})
