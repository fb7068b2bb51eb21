"""The graph of a GPU, which packs nothing: the same on every device, run here on the CPU, traced here on fake CUDA."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import fastdiff
from fastdiff.engine import capture, live_ops, live_plan
from fastdiff.engine.live_plan import LivePlan
from fastdiff.engine.program import Program
from fastdiff.engine.settings import Settings

from .agreement import assert_equal, randomised
from .spelled import BLOCKS, SpelledUNet

LIVE = Settings(live=True, inductor=False)


def live(net: nn.Module, settings: Settings = LIVE, made: list[Program] | None = None) -> Any:
    """The network as a GPU computes it, on the CPU."""
    programs = [] if made is None else made

    def backend(module: Any, inputs: Any, **_: Any) -> Program:
        programs.append(Program(module, settings))
        return programs[-1]

    return torch.compile(net, backend=backend)


def plan_of(program: Program) -> LivePlan:
    (plan,) = program.plans.values()
    assert isinstance(plan, LivePlan)
    return plan


def targets(graph: Any) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def norms_in(names: list[str]) -> int:
    """Norms of this package, with or without sums around them."""
    return sum(name.startswith("fastdiff.norm_silu") for name in names)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("spelling", BLOCKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_strides_of_eager(spelling: str, layout: torch.memory_format) -> None:
    net, made = randomised(SpelledUNet(spelling)), []
    x = torch.randn(2, 3, 16, 12).contiguous(memory_format=layout)
    t = torch.linspace(1, 999, 2)
    compiled = live(net, made=made)
    with torch.no_grad():
        assert_equal(compiled(x, t), net(x, t))
        norms = targets(plan_of(made[0]).graph)
        assert norms_in(norms)
        assert not any(
            "group_norm" in name or "aten.silu" in name for name in norms if "GroupNorm" in spelling
        )
        with torch.inference_mode():
            assert_equal(compiled(x, t), net(x, t))


class Times(nn.Module):
    """Frequencies that depend on nothing, and a factor of ones."""

    def forward(self, t: Tensor) -> Tensor:
        waves = torch.exp(torch.arange(4, device=t.device) * -0.5)
        return torch.cos((t * torch.ones(2, dtype=t.dtype))[:, None] * waves[None]) + torch.zeros(1).expand(4)


@pytest.mark.usefixtures("fused")
def test_what_depends_on_nothing_is_computed_once() -> None:
    made: list[Program] = []
    net, t = Times(), torch.tensor([0.3, 700.0])
    with torch.inference_mode():
        assert_equal(live(net, made=made)(t), net(t))
    names = targets(plan_of(made[0]).graph)
    assert not {"aten.exp.default", "aten.arange.default", "aten.ones.default"} & set(names)
    assert names.count("aten.mul.Tensor") == 1


@pytest.mark.usefixtures("fused")
def test_weights_are_read_where_they_lie() -> None:
    """Even an edit that torch's counters do not see is in the next result."""
    net = randomised(SpelledUNet("guided"))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0])
    compiled = live(net)
    with torch.no_grad():
        before = compiled(x, t)
        for weight in net.parameters():
            weight.data.view(-1)[:1] += 0.5
        assert_equal(compiled(x, t), net(x, t))
        assert not torch.equal(compiled(x, t), before)


class Half(nn.Module):
    """The norms and attention of half-precision networks, with casts around them and without."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.cast = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16)
        self.gain = nn.Parameter(torch.ones(1, 16, 1, 1))

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        wide = functional.group_norm(x.float(), 4, self.cast.weight.float(), self.cast.bias.float()).type(
            x.dtype
        )
        h = functional.silu(wide * (1 + rows[:, :16, None, None]) + rows[:, 16:, None, None])
        h = functional.silu(self.norm(h))
        h = functional.normalize(h, dim=1) * self.gain * 4
        q, k, v = h.flatten(2), x.flatten(2), h.flatten(2)
        weight = torch.einsum("bct,bcs->bts", q * 0.5, k * 0.5)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        return torch.einsum("bts,bcs->bct", weight, v)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Error against float64 at most twice that of eager torch, and everything fused."""
    net, made = randomised(Half()), []
    x, rows = torch.randn(2, 16, 6, 5), torch.randn(2, 32)
    with torch.no_grad():
        net = net.to(dtype)
        x, rows = x.to(dtype), rows.to(dtype)
        exact = _doubled(net)(x.double(), rows.double())
        got, eager = live(net, made=made)(x, rows), net(x, rows)
    assert got.dtype == dtype and got.shape == eager.shape
    largest = exact.abs().max()
    error, own = ((out.double() - exact).abs().max() / largest for out in (got, eager))
    assert error <= 2 * own + 2 * torch.finfo(dtype).eps
    names = targets(plan_of(made[0]).graph)
    assert norms_in(names) == 3
    assert "aten.softmax.int" not in names and "aten.scaled_dot_product_attention.default" in names


def _doubled(net: nn.Module) -> nn.Module:
    double = Half().double()
    double.load_state_dict(net.state_dict())
    return double


class Chooses(nn.Module):
    def forward(self, q: Tensor) -> Tensor:
        with sdpa_kernel([SDPBackend.MATH]):
            return functional.scaled_dot_product_attention(q, q, q) + functional.scaled_dot_product_attention(
                q, q, q, scale=1.0
            )


@pytest.mark.usefixtures("fused")
def test_the_networks_choice_of_attention_is_kept() -> None:
    q, made, seen = torch.randn(1, 2, 5, 4), [], []
    compiled, net = live(Chooses(), made=made), Chooses()
    with torch.no_grad():
        torch.testing.assert_close(compiled(q), net(q))
        assert targets(plan_of(made[0]).graph).count("fastdiff.attention_by.default") == 2
        original = functional.scaled_dot_product_attention
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                functional,
                "scaled_dot_product_attention",
                lambda *a, **k: (seen.append(live_ops.sdpa_choice()), original(*a, **k))[1],
            )
            made[0](q)
    assert seen == [1, 1]


def test_gradients_and_dropout_run_in_eager(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.GroupNorm(1, 4), nn.SiLU(), nn.Dropout())
    x = torch.randn(2, 4, 3, 3)
    compiled = live(net)
    with caplog.at_level(logging.WARNING, "fastdiff.engine"):
        compiled(x).sum().backward()
        assert net[0].weight.grad is not None
        with torch.no_grad():
            compiled(x)
    assert any("gradients are wanted" in r.message for r in caplog.records)
    assert any("draws random numbers" in r.message for r in caplog.records)


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["guided", "rms"])
def test_inductor_takes_the_rest(spelling: str) -> None:
    net = randomised(SpelledUNet(spelling))
    x, t = torch.randn(2, 3, 16, 12), torch.linspace(1, 999, 2)
    compiled = live(net, Settings(live=True))
    with torch.no_grad():
        assert_equal(compiled(x, t), net(x, t))
        for weight in net.parameters():
            weight.data.mul_(1.1)
        assert_equal(compiled(x, t), net(x, t))


@pytest.mark.usefixtures("fused")
def test_what_inductor_cannot_take_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from torch._inductor import compile_fx

    def fails(*_: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compile_fx, "compile_fx", fails)
    net = randomised(SpelledUNet("guided"))
    x, t = torch.randn(2, 3, 8, 8), torch.linspace(1, 999, 2)
    with torch.no_grad():
        assert_equal(live(net, Settings(live=True))(x, t), net(x, t))
    assert [r.message for r in caplog.records if "inductor could not" in r.message]
    caplog.clear()


@pytest.mark.parametrize("spelling", BLOCKS)
def test_the_same_graph_on_a_fake_gpu(spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA and CPU inputs lead to the same operations, with the same sizes and types."""
    monkeypatch.setattr(Tensor, "contiguous", _contiguous)  # torch's own asks the driver
    monkeypatch.setattr(live_plan, "fold_constants", lambda module: None)  # no GPU computes them here
    with torch.no_grad():
        net = SpelledUNet(spelling).eval()
        inputs = [torch.zeros(2, 3, 16, 12), torch.zeros(2)]
        traced = make_fx(net, pre_dispatch=True)(*inputs)
    weights = [node for node in traced.graph.nodes if node.op == "get_attr"]
    inputs += [getattr(traced, str(node.target)) for node in weights]
    told = {}
    for device in ("cpu", "cuda"):
        module = fx.GraphModule({}, _with_inputs(traced.graph, weights, device))
        with FakeTensorMode():
            there = [torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=device) for v in inputs]
        plan = LivePlan(capture.trace(module, there, keep_choice=True), LIVE, there)
        values = [node.meta.get("val") for node in plan.graph.nodes]
        tensors = [value for value in values if isinstance(value, Tensor)]
        assert {value.device.type for value in tensors} == {device}
        told[device] = Counter(map(_kind, targets(plan.graph))), tensors[-1].shape, tensors[-1].dtype
    for (
        parts
    ) in told.values():  # fake convolutions lie otherwise where torch has no cuDNN: sums may stay apart
        for name in ("add", "cat"):
            del parts[0][name]
    assert told["cpu"] == told["cuda"] and told["cpu"][0]["norm_silu"]


def _kind(name: str) -> str:
    """The operation, without its overload; norms with sums and without are one, parts of a pair and views none."""
    short = name.removeprefix("aten.").removeprefix("fastdiff.").partition(".")[0]
    if short.startswith("norm_silu"):
        return "norm_silu"
    return "add" if short in ("<built-in function getitem>", "reshape", "expand") else short


def _contiguous(x: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    return torch.ops.aten.contiguous.default(x, memory_format=memory_format)


def _with_inputs(graph: fx.Graph, weights: list[fx.Node], device: str) -> fx.Graph:
    """The graph with its weights as inputs, and what it makes on a device."""
    new: fx.Graph = fx.Graph()
    made = {node: new.placeholder(node.name) for node in graph.nodes if node.op == "placeholder"}
    made |= {node: new.placeholder(f"weight_{i}") for i, node in enumerate(weights)}
    new.output(new.graph_copy(graph, made))
    for node in new.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
    return new


def test_opcheck() -> None:
    x, rows = torch.randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last), torch.randn(2, 8)
    q = torch.randn(2, 3, 7, 4)
    checks = ("test_schema", "test_faketensor")
    for args in (
        (x, 4, rows[0], None, rows, rows, 1e-5, True),
        (x[:, :, ::2], 0, None, None, None, None, 1e-6, False),
    ):
        torch.library.opcheck(live_ops.norm_silu, args, test_utils=checks)
    torch.library.opcheck(live_ops.attention, (q, q, q, 0.5), test_utils=checks)
    torch.library.opcheck(
        live_ops.attention_by, (q, q, q, None, 0.0, False, None, False, 1), test_utils=checks
    )


def test_both_ways_in_take_the_option() -> None:
    assert fastdiff.engine.backend(torch.fx.symbolic_trace(nn.ReLU()), [], options={"inductor": False})
    with pytest.raises(ValueError, match="inductor must be one of True, False"):
        fastdiff.compile(nn.ReLU(), inductor="max")
    with pytest.raises(ValueError, match="option must be one of .*inductor, got 'live'"):
        fastdiff.engine.backend(torch.fx.symbolic_trace(nn.ReLU()), [], options={"live": True})
