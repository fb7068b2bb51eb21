"""Capture: from a dynamo graph and the arguments of one call to pre-dispatch ATen for exactly these shapes.

Dynamo may hand over one graph with symbolic sizes for many shapes, in as many spellings as torch has. Traced again
with fake tensors of concrete sizes it becomes a graph of plain ATen calls in which every operation has one name, before
torch takes group norms, convolutions and attention apart. Nothing is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import RLock
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import _symbolic_trace as symbolic_trace
from torch.fx.experimental.proxy_tensor import PythonKeyTracer, make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .graphs import Node
from .live_ops import attention_by, sdpa_choice

_ALONE = RLock()


class Unsupported(Exception):
    """A graph that the engine leaves to eager torch; the message says why."""


@contextmanager
def alone() -> Iterator[None]:
    """To be held while tracing: the tracer changes `nn.Module` for all threads, also for dynamo in another one."""
    from torch._dynamo import convert_frame

    with (
        getattr(convert_frame, "compile_lock", _ALONE),
        patch.object(PythonKeyTracer, "trace", _quiet_trace()),
    ):
        yield


def _quiet_trace() -> Callable[..., Any]:
    """`Tracer.trace` with a note of its own that it traces: compiled functions of all threads raise at torch's note."""
    plain: Any = inspect.unwrap(fx.Tracer.trace)
    own = FunctionType(
        plain.__code__, {**vars(symbolic_trace)}, "trace", plain.__defaults__, plain.__closure__
    )
    own.__kwdefaults__ = plain.__kwdefaults__
    return torch.compiler.disable(own)


class _Bound(fx.Interpreter):
    """Runs a dynamo graph whose scalar inputs are numbers: `dynamic=True` hands floats over as 0-d tensors."""

    def __init__(self, module: fx.GraphModule, numbers: dict[str, float | int | bool]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._numbers = numbers

    def run_node(self, n: Node) -> Any:
        if n.op == "call_method" and n.target == "item" and isinstance(n.args[0], fx.Node):
            if n.args[0].name in self._numbers:
                return self._numbers[n.args[0].name]
            raise Unsupported(f"the value of {n.args[0].name} is needed on the host")
        return super().run_node(n)


class _KeptChoice(TorchFunctionMode):
    """Notes in the graph which backends an `sdpa_kernel` block of the network allows: tracing forgets the block."""

    def __init__(self) -> None:
        super().__init__()
        self._around = sdpa_choice()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention and sdpa_choice() != self._around:
            return attention_by(*_attention_arguments(*args, **(kwargs or {})), sdpa_choice())
        return func(*args, **(kwargs or {}))


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Any, ...]:
    return query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa


def placeholders(module: fx.GraphModule) -> list[Node]:
    """The input nodes, in the order of the arguments."""
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def weight_positions(module: fx.GraphModule) -> list[int]:
    """Positions of the arguments that are parameters or buffers of the compiled module."""
    marks = [node.meta.get("tensor_dict") or {} for node in placeholders(module)]
    return [i for i, mark in enumerate(marks) if "_dynamo_static_input_type" in mark]


def number_positions(module: fx.GraphModule) -> list[int]:
    """Positions of 0-d tensors whose value the graph reads, so that it belongs to the shape of a call."""
    return [
        i
        for i, node in enumerate(placeholders(module))
        if any(user.op == "call_method" and user.target == "item" for user in node.users)
    ]


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def trace(module: fx.GraphModule, args: Sequence[Any], keep_choice: bool = False) -> fx.GraphModule:
    """The graph of one call in pre-dispatch ATen, with one placeholder for each tensor among the arguments.

    Args:
        module: what dynamo captured.
        args: the arguments of the call; tensors are only asked for their sizes, strides, dtypes and devices.
        keep_choice: attention under other backends than those allowed now becomes `fastdiff::attention_by`.

    Raises:
        Unsupported: when a result depends on values of tensors.
    """
    names = [node.name for node in placeholders(module)]
    numbers = {names[i]: args[i].item() for i in number_positions(module)}
    tensors = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    # Inference mode would hide the operations from the tracer.
    with torch.inference_mode(False), torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        fakes = [_fake(args[i]) for i in tensors]

        def run(*inputs: Tensor) -> Any:
            full = list(args)
            for i, value in zip(tensors, inputs, strict=True):
                full[i] = value
            with _KeptChoice() if keep_choice else nullcontext():
                return _Bound(module, numbers).run(*full)

        return make_fx(run, pre_dispatch=True)(*fakes)
