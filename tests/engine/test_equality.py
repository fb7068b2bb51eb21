"""Networks of many spellings give what they give in eager torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import fastdiff

from .agreement import assert_equal, randomised
from .spelled import BLOCKS, SpelledUNet

pytestmark = pytest.mark.usefixtures("fused")
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def compare(net: nn.Module, compiled, shape, *, layout=torch.contiguous_format, mode="no_grad") -> None:
    x = torch.randn(shape).contiguous(memory_format=layout)
    t = torch.linspace(1, 999, shape[0])
    with MODES[mode]():
        assert_equal(compiled(x, t), net(x, t))


@pytest.mark.parametrize("spelling", BLOCKS)
def test_spellings(spelling):
    net = randomised(SpelledUNet(spelling))
    compiled = torch.compile(net, backend="fastdiff")
    compare(net, compiled, (2, 3, 16, 12))
    compare(net, compiled, (3, 3, 16, 12), layout=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spelling", BLOCKS)
def test_spellings_at_all_sizes(spelling, mode, layout):
    net = randomised(SpelledUNet(spelling, 32))
    compiled = torch.compile(net, backend="fastdiff")
    for batch in (1, 2, 3, 8):
        for height, width in ((16, 16), (17, 13), (24, 8)):
            compare(net, compiled, (batch, 3, height, width), layout=layout, mode=mode)


@pytest.mark.parametrize("norm", ["group", "rms"])
@pytest.mark.parametrize("time_embedding", ["additive", "scale_shift"])
def test_our_own_network(norm, time_embedding):
    net = fastdiff.nn.UNet(
        channels=16, channel_mults=(1, 2), blocks=1, attention_levels=(1,), heads=2, groups=4, norm=norm,
        time_embedding=time_embedding,
    )  # fmt: skip
    net = randomised(net)
    compare(net, fastdiff.compile(net), (2, 3, 16, 16))


def test_found_by_name_without_an_import():
    code = (
        "import torch; net = torch.nn.Conv2d(3, 8, 3, padding=1); c = torch.compile(net, backend='fastdiff')\n"
        "x = torch.randn(1, 3, 8, 8)\nwith torch.no_grad(): print(float((c(x) - net(x)).abs().max()) < 1e-5)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "True"


def test_few_compilations_serve_all_batches_and_the_second_call_compiles_nothing(monkeypatch):
    made = []
    original = fastdiff.engine.program.Program.__init__
    monkeypatch.setattr(
        fastdiff.engine.program.Program, "__init__", lambda *a: (made.append(a), original(*a))[1]
    )
    net = randomised(SpelledUNet("guided"))
    compiled = torch.compile(net, backend="fastdiff")
    for batch in (2, 2, 3, 1, 4, 5, 8, 16):
        compare(net, compiled, (batch, 3, 8, 8))
    count = len(made)
    assert count <= 4
    for batch in range(1, 17):
        compare(net, compiled, (batch, 3, 8, 8))
    assert len(made) == count
