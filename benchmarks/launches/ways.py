"""One step of DDIM, counted: the network and the update in eager torch, by inductor, and by fastdiff."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fastdiff
from benchmarks.networks import NETWORKS, tensor_of
from fastdiff.engine import capture, live_ops, recorder
from fastdiff.engine.live_plan import LivePlan
from fastdiff.engine.settings import Settings
from fastdiff.schedule import Schedule

from .count import Launches


@dataclass
class Counted:
    """Kernels, bytes and host reads of some work."""

    launches: int
    bytes: int
    host_reads: int = 0
    by_name: dict[str, int] | None = None

    @classmethod
    def of(cls, counted: Launches) -> Counted:
        """What a counter saw."""
        return cls(counted.total, counted.bytes, counted.host_reads, dict(counted.by_name))


def pretended(name: str, batch: int, device: str = "cpu") -> tuple[fx.GraphModule, list[Tensor]]:
    """The network as one graph of ATen calls, and inputs without memory, weights first.

    The graph is the same on every device; only inductor asks for a GPU, which torch without CUDA cannot always pretend.
    """
    build, size, _ = NETWORKS[name]
    with FakeTensorMode(), torch.no_grad():
        net = build().eval()
        x, t = torch.empty(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
        named = {**dict(net.named_parameters()), **dict(net.named_buffers())}

        def call(weights: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
            return tensor_of(torch.func.functional_call(net, weights, (x, t)))

        module = make_fx(call, pre_dispatch=True)(named, x, t)
    module = fx.GraphModule(module, _flat(module.graph, device))
    inputs = fakes((*named.values(), x, t), device)
    return capture.trace(module, inputs), inputs


def fakes(tensors: Iterable[Tensor], device: str = "cpu") -> list[Tensor]:
    """Tensors of these forms without memory, in the fake mode that is on, or one of their own."""
    with contextlib.nullcontext() if active_fake_mode() else FakeTensorMode():
        return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device) for t in tensors]


def _flat(graph: fx.Graph, device: str) -> fx.Graph:
    """A copy with plain inputs in which what is made is made on the device."""
    flat = fx.Graph()
    flat.output(flat.graph_copy(graph, {}))
    for node in flat.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
    return flat


def _counted(module: fx.GraphModule, inputs: list[Tensor]) -> Counted:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Launches("cpu") as counted:
        fx.Interpreter(module).run(*fakes(inputs))
    return Counted.of(counted)


def eager(name: str, batch: int) -> Counted:
    """The network in eager torch."""
    return _counted(*pretended(name, batch))


def engine(name: str, batch: int) -> Counted:
    """The network as the engine rewrites it, without inductor."""
    module, inputs = pretended(name, batch)
    return _counted(LivePlan(module, Settings(live=True, inductor=False), inputs).live, inputs)


def eager_update(name: str, batch: int) -> Counted:
    """The step of diffusers' DDIMScheduler, its time given as a number."""
    from diffusers import DDIMScheduler

    scheduler, size = DDIMScheduler(), NETWORKS[name][1]
    scheduler.set_timesteps(50)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        x = torch.empty(batch, 3, size, size, device="cuda")  # the numbers of the schedule stay on the host
        with Launches() as counted:
            scheduler.step(x, 500, x)
    return Counted.of(counted)


class _Counting:
    """A recorder that counts the work between the first and the second network call of a recording."""

    def __init__(self) -> None:
        self.counted: Launches | None = None

    def record(self, work: Callable[[], object], reset: Callable[[], object], static: list[Tensor]) -> Any:
        reset()
        with Launches("cpu") as self.counted:
            work()
        return work


class _Marks(nn.Module):
    """A network of one operation that nothing else here calls, so that it can be told from the update."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.erf(x)


def our_update(rows: int = 10) -> Counted:
    """What the recorded loop launches in a row besides the network."""
    counting = _Counting()
    with recorder.using(counting):
        fastdiff.sample(
            _Marks(),
            rows,
            compile=True,
            num=4,
            shape=(3, 8, 8),
            schedule=Schedule.cosine(100),
            prediction="eps",
        )
    seen = counting.counted
    assert seen is not None and seen.by_name.pop("erf") == rows
    per_row = {name: count / rows for name, count in seen.by_name.items()}
    return Counted(
        round(sum(per_row.values())), 0, seen.host_reads, {n: round(c) for n, c in per_row.items()}
    )


def inductor(name: str, batch: int, rewritten: bool = False) -> Counted:
    """The kernels that inductor plans: its scheduler's nodes after fusion, each one kernel, before any code.

    They are planned for the CPU, because torch without CUDA cannot trace for a GPU; what is fused is decided by the
    same scheduler, but a GPU may split a large reduction in two. With `rewritten` it gets the engine's graph.
    """
    from torch._inductor import compile_fx

    module, inputs = pretended(name, batch)
    if rewritten:
        module = LivePlan(module, Settings(live=True, inductor=False), inputs).live
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            _one_call(node)
    module.recompile()
    with torch.no_grad(), _planning() as planned, contextlib.suppress(_Planned):
        compile_fx.compile_fx(module, inputs)
    return planned


def _one_call(node: fx.Node) -> None:
    names = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict(zip(names, (None, 0.0, False, None, False)))
    given |= dict(zip(names, node.args[3:])) | node.kwargs
    node.target, node.args, node.kwargs = live_ops.attention_by, (*node.args[:3], *given.values(), 15), {}


class _Planned(BaseException):
    """Inductor has planned; nothing is to be compiled."""


@contextlib.contextmanager
def _planning() -> Iterator[Counted]:
    """Inductor stops when its schedule stands."""
    from torch._inductor import config as inductor_config
    from torch._inductor.ir import MultiOutput
    from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler

    planned = Counted(0, 0)

    def note(self: Any) -> None:
        for node in self.nodes:
            part = isinstance(getattr(node, "node", None), MultiOutput)  # of a pair: no kernel of its own
            if not isinstance(node, NopKernelSchedulerNode) and not part:
                planned.launches += 1
                planned.bytes += node.get_read_write_buffers_sizes()
        raise _Planned

    options = {"layout_optimization": False}  # on a CPU it copies the weights of convolutions at every call
    with inductor_config.patch(options), mock.patch.object(Scheduler, "codegen", note):
        yield planned
