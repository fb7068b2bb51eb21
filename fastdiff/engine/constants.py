"""What depends on no input of a graph is computed once, when a GPU's plan is made: frequencies of a time embedding.

Weights are inputs there and stay where they are. A recorded loop reads a constant at its address, so constants are
kept for ever, equal ones once; they are small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from .graphs import Node, calls, is_tensor, output_nodes, shape_of, value_of

aten = torch.ops.aten
#: Bytes of one constant; what is larger is computed at every call.
MOST_BYTES = 1 << 20
_KEPT: dict[Any, Tensor] = {}


def _made_of_nothing(graph: fx.Graph) -> set[Node]:
    """The calls that read nothing but numbers and each other, and always give the same."""
    found = set[Node]()
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or schema.is_mutable or not is_tensor(node):
            continue
        random = torch.Tag.nondeterministic_seeded in node.target.tags
        small = value_of(node).nbytes <= MOST_BYTES
        if not random and small and all(one in found for one in node.all_input_nodes):
            found.add(node)
    return found


def _there(node: Node) -> bool:
    """Whether this torch reaches the device; a graph may be traced for a GPU that is not here."""
    return value_of(node).device.type != "cuda" or torch.cuda.is_available()


def _kept(value: Tensor) -> Tensor:
    host = value.contiguous().cpu().reshape(-1)
    key = (value.dtype, value.device, tuple(value.shape), host.view(torch.uint8).numpy().tobytes())
    return _KEPT.setdefault(key, value.contiguous())


def fold_constants(module: fx.GraphModule) -> None:
    """Put buffers of the module in the place of what its inputs do not change, and drop factors of 1."""
    graph, values = module.graph, dict[Node, Tensor]()
    constant = {node for node in _made_of_nothing(graph) if _there(node)}
    returned = output_nodes(graph)
    for node in list(graph.nodes):
        if node not in constant or node in returned:
            continue
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: values[one])
        values[node] = node.target(*args, **kwargs)
        if all(user in constant for user in node.users):
            continue
        name = f"constant_{len(values)}"
        module.register_buffer(name, _kept(values[node]))
        with graph.inserting_before(node):
            held = graph.get_attr(name)
        held.meta = {**node.meta, "val": value_of(node).contiguous()}
        node.replace_all_uses_with(held, delete_user_cb=lambda user: user not in constant)
    _drop_ones(graph, module)
    graph.eliminate_dead_code()


def _drop_ones(graph: fx.Graph, module: fx.GraphModule) -> None:
    """A product with a constant of ones is the other factor, where type and sizes stay."""
    for node in calls(graph, aten.mul.Tensor):
        for other, one in (node.args, node.args[::-1]):
            if not isinstance(one, fx.Node) or one.op != "get_attr" or not is_tensor(other):
                continue
            same = shape_of(other) == shape_of(node) and value_of(other).dtype == value_of(node).dtype
            if same and bool((getattr(module, str(one.target)) == 1).all()):
                node.replace_all_uses_with(other)
                graph.erase_node(node)
                break
