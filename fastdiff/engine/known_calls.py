"""Calls whose ATen operation and result are known before they are traced.

Tracing a convolution runs it on tensors without values: through the dispatcher, torch's decompositions and the fake
tensors, milliseconds for each. Dynamo has done that when it captured the graph, and has noted the result. Where the
arguments are of the same sizes again, the commonest calls are written into the graph as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, track_tensor_tree
from torch.nn import functional

from .graphs import Node

aten = torch.ops.aten
Call = tuple[Any, tuple[Any, ...]]
#: Methods that change the sizes of a tensor which exists, and so what dynamo has noted of it before.
_RESHAPING = {
    *("t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_"),
    *("as_strided_", "resize_", "resize_as_", "set_", "set_data"),
}


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    return (aten.linear.default, (x, weight, bias))


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Call | None:
    if isinstance(padding, str):
        return None
    pairs = ([n, n] if isinstance(n, int) else list(n) for n in (stride, padding, dilation))
    return (aten.conv2d.default, (x, weight, bias, *pairs, groups))


def _group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Call | None:
    return (aten.group_norm.default, (x, num_groups, weight, bias, eps, torch.backends.cudnn.enabled))


def _silu(x: Tensor, inplace: bool = False) -> Call | None:
    return None if inplace else (aten.silu.default, (x,))


def _of_two(target: Any) -> Callable[[Any, Any], Call | None]:
    def call(a: Any, b: Any) -> Call | None:
        plain = isinstance(a, Tensor) and (isinstance(b, Tensor) or type(b) in (int, float))
        return (target, (a, b)) if plain else None

    return call


_CALLS: dict[Any, Callable[..., Call | None]] = {
    functional.linear: _linear,
    functional.conv2d: _conv2d,
    functional.group_norm: _group_norm,
    functional.silu: _silu,
    operator.add: _of_two(aten.add.Tensor),
    operator.mul: _of_two(aten.mul.Tensor),
    operator.truediv: _of_two(aten.div.Tensor),
}


def _noted(node: Node) -> Any:
    return node.meta.get("example_value")


def _same(arg: Any, noted: Any) -> bool:
    """Whether an argument has the form that dynamo saw; a number, or a size that may be another one, has none."""
    if not isinstance(arg, Tensor) or not isinstance(noted, FakeTensor):
        return False
    numbers = (*noted.shape, *noted.stride())
    return (
        all(type(n) is int for n in numbers)
        and (arg.shape, arg.stride()) == (noted.shape, noted.stride())
        and (arg.dtype, arg.device) == (noted.dtype, noted.device)
    )


def results(module: fx.GraphModule, args: Sequence[Any]) -> dict[Node, Tensor]:
    """What the known calls of a captured graph return, in the fake tensor mode that is on; {} where none is known.

    Args:
        module: what dynamo captured.
        args: the arguments of a call.
    """
    nodes = list(module.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    named = {str(getattr(node.target, "__name__", node.target)) for node in nodes}
    if named & _RESHAPING or not all(
        _same(arg, _noted(node)) for arg, node in zip(args, inputs, strict=True)
    ):
        return {}
    return {node: _alike(_noted(node)) for node in nodes if node.target in _CALLS and _is_plain(_noted(node))}


def _is_plain(noted: Any) -> bool:
    plain = isinstance(noted, FakeTensor) and noted.layout == torch.strided
    return plain and all(type(n) is int for n in (*noted.shape, *noted.stride()))


def _alike(noted: Tensor) -> Tensor:
    return torch.empty_strided(noted.shape, noted.stride(), dtype=noted.dtype, device=noted.device)


def write(node: Node, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Write a known call into the graph that is being traced.

    Args:
        node: of the captured graph.
        result: from `results`.
        args: values of the node's arguments.
        kwargs: values of its arguments by name.

    Returns:
        False where it must be traced after all.
    """
    mode, call = get_proxy_mode(), _CALLS[node.target](*args, **kwargs)
    if mode is None or call is None:
        return False
    target, operands = call
    tracer: Any = mode.tracer
    slots = [get_proxy_slot(a, tracer, None) if isinstance(a, Tensor) else None for a in operands]
    if any(isinstance(a, Tensor) and slot is None for a, slot in zip(operands, slots, strict=True)):
        return False  # a constant
    proxies = tuple(a if slot is None else slot.proxy for a, slot in zip(operands, slots, strict=True))
    name = tracer.graph._target_to_str(target.overloadpacket.__name__)
    made = tracer.create_proxy("call_function", target, proxies, {}, name=name)
    track_tensor_tree(result, made, constant=None, tracer=tracer)
    return True
