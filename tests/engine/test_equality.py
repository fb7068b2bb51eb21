"""Networks of many spellings give what they give in eager torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import fastdiff
from fastdiff.engine import graph_ops
from fastdiff.engine.fuse_attention import fuse_attention
from fastdiff.engine.normalise import normalise

from .agreement import assert_equal, assert_same_values, randomised
from .spelled import BLOCKS, SpelledUNet

pytestmark = pytest.mark.usefixtures("fused")
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def compare(net: nn.Module, compiled, shape, *, layout=torch.contiguous_format, mode="no_grad") -> None:
    x = torch.randn(shape).contiguous(memory_format=layout)
    t = torch.linspace(1, 999, shape[0])
    # At batch 1 torch's fake tensors foretell other strides than eager gives (docs/engine.md, Limits).
    agree = assert_equal if shape[0] > 1 else assert_same_values
    with MODES[mode]():
        agree(compiled(x, t), net(x, t))


@pytest.mark.parametrize("spelling", BLOCKS)
def test_spellings(spelling):
    net = randomised(SpelledUNet(spelling))
    compiled = torch.compile(net, backend="fastdiff")
    compare(net, compiled, (2, 3, 16, 12))
    compare(net, compiled, (3, 3, 16, 12), layout=torch.channels_last)


def test_inference_mode_after_no_grad():
    net = randomised(SpelledUNet("rms"))
    compiled = torch.compile(net, backend="fastdiff")
    for mode in ("no_grad", "inference_mode", "no_grad"):
        compare(net, compiled, (2, 3, 9, 11), mode=mode)


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


@pytest.mark.skipif(not graph_ops.ATTENDS_LINEARLY, reason="the C++ backend is not built")
def test_attention_of_this_package_in_cpp():
    """It writes into memory made beforehand, which must not drive the graph back to eager torch."""

    class Attending(nn.Module):
        def forward(self, x, t):
            q, k, v = (x * t[:, None, None, None]).chunk(3)
            return fastdiff.ops.attention(q, k, v) + fastdiff.ops.linear_attention(q, k, v)

    x, t = torch.randn(6, 2, 20, 8), torch.rand(6)
    with torch.no_grad(), fastdiff.use_backend("cpp"):
        assert_equal(torch.compile(Attending(), backend="fastdiff")(x, t), Attending()(x, t))


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


B, H, N, M, D = 2, 3, 7, 5, 4
ATTENTIONS = {
    "matmul": (
        ((B, H, N, D), (B, H, M, D), (B, H, M, 6)),
        lambda q, k, v: (torch.matmul(q * D**-0.5, k.transpose(-1, -2))).softmax(-1) @ v,
    ),
    "channels first": (
        ((B, D, N), (B, D, M), (B, 6, M)),
        lambda q, k, v: torch.einsum("qab,qdb->qda", torch.einsum("nca,ncb->nab", q, k / 2).softmax(2), v),
    ),
    "heads last": (
        ((B, N, H, D), (B, M, H, D), (B, M, H, 6)),
        lambda q, k, v: torch.einsum(
            "bijh,bjhd->bihd", (torch.einsum("bihd,bjhd->bijh", q, k) * 0.5).softmax(2), v
        ),
    ),
    "keys first": (
        ((B, D, N), (B, D, M), (B, 6, M)),
        lambda q, k, v: torch.einsum("bcs,bts->bct", v, torch.einsum("bcs,bct->bts", k, q).softmax(-1)),
    ),
    "over queries": (  # no attention: the softmax runs over the wrong letter
        ((B, N, H, D), (B, M, H, D), (B, M, H, 6)),
        lambda q, k, v: torch.einsum("bijh,bjhd->bihd", torch.einsum("bihd,bjhd->bijh", q, k).softmax(1), v),
    ),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_written_by_hand(name):
    sizes, attend = ATTENTIONS[name]
    q, k, v = (torch.randn(size) for size in sizes)
    traced = make_fx(attend, pre_dispatch=True)(q, k, v)
    normalise(traced.graph)
    fuse_attention(traced.graph)
    traced.recompile()
    assert ("scaled_dot_product" in traced.code) == (name != "over queries")
    torch.testing.assert_close(traced(q, k, v), attend(q, k, v))
