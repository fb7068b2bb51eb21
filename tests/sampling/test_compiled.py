"""`compile=True` on a CPU: the network is compiled by the engine, once, and draws the same images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from fastdiff import engine
from fastdiff import nn as fnn
from fastdiff.sampling import compile_rule, execution

OPTIONS = {"schedule": "cosine", "prediction": "v", "shape": (1, 8, 8), "labels": [0, 1, 2], "guidance": 2.0}


def test_images_are_those_of_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = fnn.UNet(in_channels=1, channels=16, channel_mults=(1, 2), blocks=1, groups=4, num_classes=3).eval()
    compiled, calls = engine.compile, []
    monkeypatch.setattr(execution.engine, "compile", lambda net: calls.append(net) or compiled(net))
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
    with pytest.raises(ValueError, match="not a torch module"):
        fastdiff.sample(lambda x, t, labels: x, 3, num=3, compile=True, **{**OPTIONS, "guidance": None})


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x) * t[:, None, None, None].float().sin()


def test_operations_are_counted_without_carrying_them_out() -> None:
    net, x = Plain().eval(), torch.full((3, 1, 8, 8), float("nan"))
    assert compile_rule.flops_of(net, x, {}) == 2 * 9 * 3 * 64
    assert compile_rule.flops_of(lambda x, t: x * float(x.sum()), x, {}) == 0


def test_small_runs_are_ruled_out_without_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, counted = Plain().eval(), torch.zeros(3, 1, 8, 8), []
    monkeypatch.setattr(compile_rule, "flops_of", lambda *_: counted.append(1) or 9 * 2 * 3 * 64)
    about = 10 * 2 * 3 * 64  # nine weights and a bias, each at every pixel
    for limit, times in ((49 * about, 0), (47 * about, 1)):
        monkeypatch.setattr(compile_rule, "FLOPS", limit)
        assert not compile_rule.worth_compiling(net, x, {}, 12, 1)
        assert len(counted) == times


@pytest.mark.skipif(not engine.graph_ops.CONVOLVES, reason="the C++ backend is not built")
def test_auto_compiles_from_a_number_of_operations_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net, calls = Plain().eval(), []
    monkeypatch.setattr(execution.engine, "compile", lambda net: calls.append(net) or net)
    options = {"schedule": "cosine", "prediction": "v", "shape": (1, 8, 8), "num": 3}
    total = 12 * compile_rule.flops_of(net, torch.zeros(3, 1, 8, 8), {})
    with caplog.at_level("INFO", "fastdiff.sampling"):
        for limit in (total + 1, total):
            monkeypatch.setattr(compile_rule, "FLOPS", limit)
            fastdiff.sample(net, 12, **options)
            fastdiff.sample(net, 9, **options)  # too few rows for anything
    assert calls == [net]
    told = [record.message for record in caplog.records]
    assert len(told) == 2 and "left to eager torch" in told[0] and "compiled by the engine" in told[1]
    for other in (net.train(), torch.compile(net, backend="eager"), lambda x, t: x):
        assert not compile_rule.worth_compiling(other, torch.zeros(1, 1, 8, 8), {}, 12, 1)
