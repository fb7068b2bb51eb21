"""The engine on a GPU: the values of eager torch, in every spelling and type, alone and with inductor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdiff


def _from_the_engines_tests(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "engine" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


spelled, agreement = (_from_the_engines_tests(name) for name in ("spelled", "agreement"))


def network(spelling: str) -> nn.Module:
    net: nn.Module = agreement.randomised(spelled.SpelledUNet(spelling))
    return net.cuda()


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 3, 16, 12, generator=generator)
    return x.cuda(), torch.linspace(1, 999, batch).cuda()


@pytest.mark.parametrize("inductor", [False, True])
@pytest.mark.parametrize("spelling", list(spelled.BLOCKS))
def test_values_of_eager(spelling: str, inductor: bool, caplog: pytest.LogCaptureFixture) -> None:
    net, given = network(spelling), inputs()
    compiled = fastdiff.compile(net, inductor=inductor)
    with torch.no_grad():
        wanted = net(*given)
        for _ in range(2):
            got = compiled(*given)
            assert got.shape == wanted.shape and got.dtype == wanted.dtype
            error = float((got - wanted).abs().max() / wanted.abs().max())
            assert error <= 1e-4, error
        last = tuple(t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in given)
        error = float((compiled(*last) - wanted).abs().max() / wanted.abs().max())
        assert error <= 1e-4, error
    assert [r.message for r in caplog.records if r.name == "fastdiff.engine"] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inductor", [False, True])
def test_half_precision(dtype: torch.dtype, inductor: bool) -> None:
    """Of the shipped model: no farther from float32 than three times eager torch in the same type."""
    net = fastdiff.load("fashion").net.cuda().eval()
    x = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    t, labels = torch.tensor([10, 300, 600, 900]).cuda(), torch.tensor([0, 3, 5, 9]).cuda()
    with torch.no_grad():
        exact = net(x, t, labels=labels).double()
        net = net.to(dtype)
        eager = net(x.to(dtype), t, labels=labels)
        got = fastdiff.compile(net, inductor=inductor)(x.to(dtype), t, labels=labels)
    assert got.dtype == eager.dtype
    error, own = (float((out.double() - exact).abs().max()) for out in (got, eager))
    assert error <= 3 * own + 1e-3, (error, own)


def test_by_name_and_live_weights() -> None:
    net, given = network("guided"), inputs()
    compiled: Any = torch.compile(net, backend="fastdiff")
    with torch.no_grad():
        before = compiled(*given)
        for weight in net.parameters():
            weight.data.mul_(1.1)
        after, wanted = compiled(*given), net(*given)
    assert not torch.equal(before, after)
    assert float((after - wanted).abs().max() / wanted.abs().max()) <= 1e-4


def test_training_through_the_ops() -> None:
    """Gradients of the package's own network on the GPU against float64 on the CPU."""
    torch.manual_seed(0)
    net = fastdiff.nn.UNet(in_channels=1, channels=32, channel_mults=(1, 2), blocks=1, groups=4)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([10, 500])
    results = {}
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
        net = net.to(device, dtype)
        net.zero_grad()
        net(x.to(device, dtype), t.to(device)).square().mean().backward()
        results[device] = [p.grad.double().cpu().clone() for p in net.parameters() if p.grad is not None]
    assert len(results["cpu"]) == len(results["cuda"]) > 0
    largest = max(float(g.abs().max()) for g in results["cpu"])
    for ours, exact in zip(results["cuda"], results["cpu"]):
        assert float((ours - exact).abs().max()) <= 1e-4 * max(largest, 1e-6)
