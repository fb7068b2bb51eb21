"""What the engine does with a network: what was fused, what was not and why, and where the time goes."""

from __future__ import annotations

import operator
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import graph_ops, live_ops
from .fuse_sinusoids import sinusoids
from .graphs import Node, is_call, shape_of
from .program import Program
from .settings import Settings

_ROUNDS = 5


@dataclass(frozen=True)
class Step:
    """One call of a plan.

    Attributes:
        name: of the operation.
        size: shape of its result.
        milliseconds: median of a few runs.
        fused: what the call includes, or why nothing was fused into it.
    """

    name: str
    size: tuple[int, ...]
    milliseconds: float
    fused: str


@dataclass
class Explanation:
    """All steps of the plans used by one call of a network; `print` shows them as a table.

    Attributes:
        steps: in the order of execution.
        eager: why graphs, if any, were left to eager torch.
        packed_bytes: memory of packed weights, in bytes.
    """

    steps: list[Step] = field(default_factory=list)
    eager: list[str] = field(default_factory=list)
    packed_bytes: int = 0

    def __str__(self) -> str:
        by_name: dict[str, list[float]] = defaultdict(list)
        for step in self.steps:
            by_name[step.name].append(step.milliseconds)
        lines = [f"left to eager torch: {reason}" for reason in self.eager]
        lines.append(f"packed weights: {self.packed_bytes / 2**20:.1f} MiB")
        lines += [f"{'ms':>9} {'calls':>6}  operation"]
        for name, times in sorted(by_name.items(), key=lambda item: -sum(item[1])):
            lines.append(f"{sum(times):9.3f} {len(times):6d}  {name}")
        lines += ["", f"{'ms':>9}  step"]
        for step in self.steps:
            size = "x".join(str(n) for n in step.size)
            lines.append(f"{step.milliseconds:9.3f}  {step.name} {size}  {step.fused}".rstrip())
        return "\n".join(lines)


def _conv3x3(node: Node) -> str:
    x2, algorithm, factors, activate = (node.args[i] for i in (1, 3, 5, 7))
    upsample, add, residual, gain = (node.args[i] for i in (8, 9, 10, 11))
    parts = [
        ("stride 2", node.args[13] == 2),
        ("concatenation", x2 is not None),
        ("norm", factors is not None),
        ("SiLU", activate),
        ("upsampling", upsample),
        ("embedding", add is not None),
        ("residual", residual is not None),
        ("factor", gain != 1.0),
        ("statistics", bool(node.kwargs)),
    ]
    return f"{algorithm} with " + (", ".join(name for name, there in parts if there) or "nothing else")


def _conv1x1(node: Node) -> str:
    x2, factors, activate, residual = (node.args[i] for i in (1, 4, 6, 7))
    parts = [
        ("concatenation", x2 is not None),
        ("norm", factors is not None),
        ("SiLU", activate),
        ("residual", residual is not None),
        ("statistics", bool(node.kwargs)),
    ]
    return "product with " + (", ".join(name for name, there in parts if there) or "nothing else")


def _packed_conv(node: Node) -> str:
    stride, dilation, groups = node.args[3], node.args[5], node.args[6]
    reasons = [f"stride {stride}"] * (set(stride) != {1}) + [f"dilation {dilation}"] * (set(dilation) != {1})
    reasons += [f"{groups} groups"] * (groups != 1)
    return "oneDNN, packed: " + (", ".join(reasons) or "too few channels or not 3x3, or winograd=False")


def _norm_silu(node: Node) -> str:
    return "one pass; not fused: no 3x3 convolution follows, or several operations read it"


_TOLD: dict[Any, Callable[[Node], str]] = {
    graph_ops.conv1x1: _conv1x1,
    graph_ops.conv3x3: _conv3x3,
    graph_ops.packed_conv: _packed_conv,
    graph_ops.norm_silu: _norm_silu,
    live_ops.norm_silu: lambda node: "one pass, reads the live weights",
    live_ops.attention_by: lambda node: "on the backends the network allows",
    graph_ops.packed_linear: lambda node: (
        "oneDNN, packed" if node.args[3] >= graph_ops.PACKED_ROWS else "few rows"
    ),
    graph_ops.packed_linear_add: lambda node: "with the sum that follows",
    graph_ops.linear_attention: lambda node: (
        "two softmaxes and two products" + ", memory" * (node.args[3] is not None)
    ),
    sinusoids: lambda node: "of a time embedding",
    graph_ops.fresh: lambda node: "output in memory of its own",
}


class _Timer(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[Node, list[float]] = defaultdict(list)

    def run_node(self, n: Node) -> Any:
        start = time.perf_counter()
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        self.seconds[n].append(time.perf_counter() - start)
        return result


def _steps(module: fx.GraphModule, args: list[Any]) -> list[Step]:
    timer = _Timer(module)
    with torch.no_grad():
        for _ in range(_ROUNDS):
            timer.run(*args)
    steps = []
    for node, seconds in timer.seconds.items():
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        target = node.target
        name = getattr(target, "__name__", str(target))
        told = _TOLD.get(target, lambda node: "unchanged: no pattern covers it")
        own = is_call(
            node, *(getattr(graph_ops, n) for n in ("statistics_of", "group_factors", "pixel_factors"))
        )
        median = 1e3 * sorted(seconds)[len(seconds) // 2]
        steps.append(Step(name, shape_of(node), median, "for a norm" if own else told(node)))
    return steps


def explain(net: nn.Module, *inputs: Any, **keywords: Any) -> Explanation:
    """Compile a network from scratch, run it, and report what the engine does with it.

    Args:
        net: a network that is not compiled.
        inputs: its positional inputs.
        keywords: its keyword inputs.

    Returns:
        The steps with their times; `print(explain(net, x, t))` shows a table.

    Raises:
        TypeError: if `net` is not a module.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"explain: net must be a module, got {type(net).__name__}")
    made: list[_Recording] = []

    def backend(module: fx.GraphModule, example: Any, **_: Any) -> Program:
        made.append(_Recording(module, Settings()))
        return made[-1]

    torch.compiler.reset()
    try:
        with torch.no_grad():
            torch.compile(net, backend=backend)(*inputs, **keywords)
    finally:
        torch.compiler.reset()
    told = Explanation()
    for program in made:
        program.tell(told)
    return told


class _Recording(Program):
    """A program that keeps the arguments of its last call."""

    def __call__(self, *args: Any) -> Any:
        self._last = args
        return super().__call__(*args)

    def tell(self, told: Explanation) -> None:
        """Add the steps of the last call."""
        told.eager += sorted(self.said)
        told.packed_bytes += self.weights.nbytes()
        plan = self.plans.get(self.key(self._last))
        if plan is None:
            return
        tensors = [a for a in self._last if isinstance(a, Tensor)]
        told.steps += _steps(plan.live, [*tensors, *self.packed(plan, self._last)])
