"""Questions that every pass asks of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, fx
from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    # torch gives a node's arguments a union of twenty types; to a pass they are what the schema says.
    Node: TypeAlias = Any
else:
    Node = fx.Node


def value_of(node: Node) -> Any:
    """The fake value that the tracer noted, or None."""
    return node.meta.get("val")


def attribute_of(node: Node) -> Any:
    """What a node reads from the module of its graph."""
    value: Any = node.graph.owning_module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value


def shape_of(node: Node) -> tuple[int, ...]:
    """Sizes of a node's tensor; () for anything else."""
    value = value_of(node)
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def is_tensor(node: Any) -> bool:
    """Whether this argument is a node with one tensor."""
    return isinstance(node, fx.Node) and isinstance(value_of(node), Tensor)


def is_call(node: Any, *targets: Any) -> bool:
    """Whether this argument is a node that calls one of the targets."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def storage_of(node: Node) -> int | None:
    """An identity shared by all nodes whose tensors share memory."""
    value = value_of(node)
    return StorageWeakRef(value.untyped_storage()).cdata if isinstance(value, Tensor) else None


def calls(graph: fx.Graph, *targets: Any) -> list[Node]:
    """All nodes that call one of the targets, in order."""
    return [node for node in graph.nodes if is_call(node, *targets)]


def only_user(node: Node) -> Node | None:
    """The single user of a node, or None where there are several or none."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def replace(node: Node, target: Callable[..., Any], args: tuple[Any, ...], **kwargs: Any) -> Node:
    """Put a call in the place of a node, with the node's value, and erase the node."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args, kwargs)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)
    return new


def erase_dead(node: Node) -> None:
    """Erase a call that nobody reads, and what only it has read."""
    if node.op != "call_function" or node.users:
        return
    inputs = node.all_input_nodes
    node.graph.erase_node(node)
    for source in inputs:
        erase_dead(source)


def schema_of(node: Node) -> torch.FunctionSchema | None:
    """The schema of an operation of torch, None for anything else."""
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def positions(graph: fx.Graph) -> dict[Node, int]:
    """Place of every node in the order of execution."""
    return {node: i for i, node in enumerate(graph.nodes)}


def output_nodes(graph: fx.Graph) -> list[Any]:
    """What the graph returns, flat."""
    returned = next(iter(reversed(graph.nodes))).args[0]
    return (
        list(returned) if isinstance(returned, Iterable) and not isinstance(returned, fx.Node) else [returned]
    )
