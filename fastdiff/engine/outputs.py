"""Results of a graph: those that eager torch would make anew must not share memory with inputs or with each other.

Normalising drops copies that nobody can tell inside a graph; at its end somebody can.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, fx
from torch.fx import Node

from .graph_ops import fresh
from .graphs import storage_of, value_of

aten = torch.ops.aten


class Made(NamedTuple):
    """A tensor that eager torch makes.

    Attributes:
        size: of the tensor.
        stride: of the tensor.
        storage: an identity shared by all results in the same memory.
    """

    size: list[int]
    stride: list[int]
    storage: int | None


def returned(graph: fx.Graph) -> list[Made | None]:
    """What eager torch makes for each result; None for a number, an input or a view of one.

    To be asked before normalising.
    """
    inputs = {storage_of(node) for node in graph.nodes if node.op == "placeholder"}
    found: list[Made | None] = []

    def note(node: Node) -> Node:
        value = value_of(node)
        made = isinstance(value, Tensor) and storage_of(node) not in inputs
        found.append(Made(list(value.shape), list(value.stride()), storage_of(node)) if made else None)
        return node

    fx.map_arg(_output(graph).args, note)
    return found


def copied(graph: fx.Graph, made: list[Made | None]) -> None:
    """Give every result in `made` memory of its own, in the strides that it has there."""
    wanted = iter(made)

    def owned(node: Node) -> Node:
        form = next(wanted)
        if form is None:
            return node
        with graph.inserting_before(_output(graph)):
            copy = graph.call_function(fresh, (node, form.size, form.stride))
        copy.meta = dict(node.meta)
        return copy

    _output(graph).args = fx.map_arg(_output(graph).args, owned)


def unshared(graph: fx.Graph, made: list[Made | None]) -> None:
    """Copy only those results in `made` that normalising has left in the memory of an input or of another result."""
    wanted, holders = iter(made), dict[Node, int | None]()

    def owned(node: Node) -> Node:
        form = next(wanted)
        if form is None:
            return node
        source = _made_by(node)
        own = source.op == "call_function" and holders.setdefault(source, form.storage) == form.storage
        if own and list(value_of(node).stride()) == form.stride:
            return node
        with graph.inserting_before(_output(graph)):
            copy = graph.call_function(aten.clone.default, (node,), {"memory_format": _format(form)})
        copy.meta = {**node.meta, "val": aten.clone.default(value_of(node), memory_format=_format(form))}
        return copy

    _output(graph).args = fx.map_arg(_output(graph).args, owned)


def _output(graph: fx.Graph) -> Node:
    return next(iter(reversed(graph.nodes)))


def _made_by(node: Node) -> Node:
    """The node whose memory a chain of views looks at."""
    while node.op == "call_function" and _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    aliases = [] if schema is None else [result.alias_info for result in schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _format(form: Made) -> torch.memory_format:
    """Contiguous or channels last, as the strides say; else as the copied tensor is."""
    like = torch.empty_strided(form.size, form.stride, device="meta")
    if like.is_contiguous():
        return torch.contiguous_format
    if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.preserve_format
