"""Turns in-place operations into ordinary ones, where nobody can tell the difference.

`y = x.add_(z)` becomes `y = x + z`, and later readers of x read y, when x is made inside the graph and no other view of
its memory is read afterwards. What remains in place makes the whole graph one that the engine leaves to eager torch: an
input that the network writes to must be written to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .capture import Unsupported
from .graphs import Node, is_tensor, positions, schema_of, storage_of, value_of

aten = torch.ops.aten


def _written(node: Node) -> list[Node]:
    """The arguments that an operation writes to."""
    schema = schema_of(node)
    if schema is None or not schema.is_mutable:
        return []
    named = dict(zip((a.name for a in schema.arguments), node.args)) | dict(node.kwargs)
    written = [
        named.get(a.name) for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write
    ]
    return [value for value in written if isinstance(value, fx.Node)]


def _counterpart(node: Node) -> Any:
    """The operation without the underscore, or None."""
    packet, _, overload = str(node.target).removeprefix("aten.").partition(".")
    if not str(node.target).startswith("aten.") or not packet.endswith("_") or packet.startswith("_"):
        return None
    found = getattr(aten, packet[:-1], None)
    return getattr(found, overload, None) if found is not None else None


def _others_are_read_later(node: Node, base: Node, order: dict[Node, int]) -> bool:
    memory, at = storage_of(base), order[node]
    for other in node.graph.nodes:
        if other in (base, node) or storage_of(other) != memory:
            continue
        if other.op in ("placeholder", "get_attr"):
            return True
        if any(order[user] > at for user in other.users) and not _descends(other, node, order):
            return True
    return False


def _descends(other: Node, node: Node, order: dict[Node, int]) -> bool:
    """Whether a view is taken after the write, from its result: then it reads the new value anyway."""
    if order[other] < order[node]:
        return False
    inputs = [n for n in other.all_input_nodes if storage_of(n) == storage_of(node)]
    return all(n is node or _descends(n, node, order) for n in inputs)


def _make_pure(node: Node) -> bool:
    written, target, order = _written(node), _counterpart(node), positions(node.graph)
    if target is None or len(written) != 1 or node.args[0] is not written[0]:
        return False
    base = written[0]
    if base.op != "call_function" or _others_are_read_later(node, base, order):
        return False
    if any(value_of(n).dtype != value_of(base).dtype for n in node.all_input_nodes[1:] if is_tensor(n)):
        return False  # in place the result keeps the type of x, else types are promoted
    later = [user for user in base.users if order[user] > order[node]]
    for user in later:
        user.replace_input_with(base, node)
    node.target = target
    return True


def without_writes(graph: fx.Graph) -> None:
    """Make every in-place operation an ordinary one.

    Raises:
        Unsupported: when one of them can be told from outside, or draws random numbers.
    """
    for node in list(graph.nodes):
        schema = schema_of(node)
        if schema is None:
            continue
        if schema.is_mutable and not _make_pure(node):
            raise Unsupported(f"{node.target} writes to memory that is read elsewhere")
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and _draws(node):
            raise Unsupported(f"{node.target} draws random numbers (train mode?)")


def _draws(node: Node) -> bool:
    """Whether an operation with a random form takes it here: dropout only in train mode."""
    named = dict(zip((a.name for a in node.target._schema.arguments), node.args)) | dict(node.kwargs)
    if "train" in named:
        return bool(named["train"]) and named.get("p", 0.0) > 0.0
    if "dropout_p" in named or node.target is aten.scaled_dot_product_attention.default:
        return bool(named.get("dropout_p", 0.0) > 0.0)
    return True
