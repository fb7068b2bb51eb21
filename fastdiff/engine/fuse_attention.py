"""Attention written by hand, softmax(scale q k^T) v as products or einsums, becomes `scaled_dot_product_attention`."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from torch import fx

from . import graph_ops
from .graphs import Node, calls, erase_dead, is_call, is_tensor, only_user, replace, shape_of, value_of
from .move_views import new_call

aten = torch.ops.aten
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = (aten.to.dtype, aten._to_copy.default)
PRODUCTS = (aten.einsum.default, aten.bmm.default, aten.matmul.default)


@dataclass(frozen=True)
class Product:
    """A product of two tensors with a letter for each dimension."""

    first: Node
    second: Node
    letters: tuple[str, str, str]


def product_of(node: Node) -> Product | None:
    """The product that a node computes, where it is one of two tensors."""
    if is_call(node, aten.einsum.default):
        sides = str(node.args[0]).replace(" ", "").split("->")
        if len(sides) != 2 or len(node.args[1]) != 2 or "." in sides[0]:
            return None
        first, second = sides[0].split(",")
        operands, letters = node.args[1], (first, second, sides[1])
    elif is_call(node, aten.bmm.default, aten.matmul.default):
        operands, rank = node.args[:2], len(shape_of(node))
        if rank not in (3, 4) or any(len(shape_of(x)) != rank for x in operands):
            return None
        if any(shape_of(x)[: rank - 2] != shape_of(node)[: rank - 2] for x in operands):
            return None
        batch = string.ascii_uppercase[: rank - 2]
        letters = (batch + "ik", batch + "kj", batch + "ij")
    else:
        return None
    if any(len(set(part)) != len(part) for part in letters):
        return None
    return Product(operands[0], operands[1], letters)


def unscaled(node: Node) -> tuple[Node, float]:
    """(node, the number that it is multiplied by)."""
    scale = 1.0
    while is_call(node, aten.mul.Tensor, aten.div.Tensor) and isinstance(node.args[1], (int, float)):
        if only_user(node) is None or not is_tensor(node.args[0]):
            break
        scale *= node.args[1] if is_call(node, aten.mul.Tensor) else 1.0 / node.args[1]
        node = node.args[0]
    return node, scale


@dataclass(frozen=True)
class _Attention:
    """The letters of the dimensions: those of the batch, of queries, keys, and of the widths of q and v."""

    batch: str
    query: str
    key: str
    width: str
    value: str


def _letters(scores: Product, weighted: Product, probabilities: Node, dim: int) -> _Attention | None:
    q, k, s = scores.letters
    if s[dim] in q:
        q, k = k, q
    mine = 0 if weighted.first is probabilities else 1
    p, v, o = weighted.letters[mine], weighted.letters[1 - mine], weighted.letters[2]
    # The second product's letters, in the first one's: those of the scores by their places, the width of v a new one.
    names = dict(zip(p, s))
    rest = [letter for letter in v if letter not in names]
    if len(p) != len(s) or len(rest) != 1 or len(set(q + k)) != len(s) + 1:
        return None
    names[rest[0]] = "*"
    if any(letter not in names for letter in o):
        return None
    v, o = "".join(names[c] for c in v), "".join(names[c] for c in o)
    query, key = set(q) & set(s) - set(k), set(k) & set(s) - set(q)
    width, batch = set(q) & set(k) - set(s), "".join(c for c in s if c in q and c in k)
    if not (len(query) == len(key) == len(width) == 1) or s[dim] not in key:
        return None
    found = _Attention(batch, query.pop(), s[dim], width.pop(), "*")
    good = set(v) == {*batch, found.key, "*"} and set(o) == {*batch, found.query, "*"}
    return found if good and len(batch) in (1, 2) else None


def ordered(node: Node, letters: str, wanted: str) -> Node:
    """The tensor with its dimensions in the wanted order, and one head where there are no heads."""
    order = [letters.index(c) for c in wanted]
    value = value_of(node).permute(order)
    node = new_call(node.graph, value, aten.permute.default, node, order)
    if len(wanted) == 3:
        node = new_call(node.graph, value.unsqueeze(1), aten.unsqueeze.default, node, 1)
    return node


def _cast(node: Node) -> Node | None:
    """What is cast here, where only this cast reads it; None where nothing is."""
    source = node.args[0] if is_call(node, *_CASTS) else None
    return source if is_tensor(source) and only_user(source) is node else None


def _one_type(*nodes: Node) -> bool:
    """Whether all are tensors of one floating type; the products sum in float32 whatever it is."""
    types = {value_of(node).dtype for node in nodes}
    return len(types) == 1 and types.issubset(_FLOATS)


def _put(softmax: Node, probabilities: Node, weighted: Node) -> None:
    source = _cast(softmax.args[0]) or softmax.args[0]
    scores, scale = unscaled(source)
    first, second = product_of(scores), product_of(weighted)
    if first is None or second is None or only_user(scores) is None or only_user(softmax.args[0]) is None:
        return
    if not _one_type(first.first, first.second, second.first, second.second, weighted):
        return
    dim = softmax.args[1] % len(shape_of(softmax))
    found = _letters(first, second, probabilities, dim)
    if found is None:
        return
    mine = 0 if second.first is probabilities else 1
    names = dict(zip(second.letters[mine], first.letters[2]))
    renamed = ["".join(names.get(c, "*") for c in part) for part in second.letters]
    q_first = found.query in first.letters[0]
    operands = [(first.first, first.letters[0]), (first.second, first.letters[1])]
    (q, q_letters), (k, k_letters) = operands if q_first else operands[::-1]
    v = second.second if mine == 0 else second.first
    graph = weighted.graph
    with graph.inserting_before(weighted):
        q = ordered(q, q_letters, found.batch + found.query + found.width)
        k = ordered(k, k_letters, found.batch + found.key + found.width)
        v = ordered(v, renamed[1 - mine], found.batch + found.key + "*")
        rows = list(q.meta["val"].shape[:-1])
        value = value_of(weighted).new_empty([*rows, v.meta["val"].shape[-1]])
        node = graph.call_function(
            aten.scaled_dot_product_attention.default, (q, k, v), {"scale": float(scale)}
        )
        node.meta["val"] = value
        if len(found.batch) == 1:
            value = value.squeeze(1)
            node = new_call(graph, value, aten.squeeze.dim, node, 1)
        order = [(found.batch + found.query + "*").index(c) for c in renamed[2]]
        node = new_call(graph, value_of(weighted), aten.permute.default, node, order)
    weighted.replace_all_uses_with(node)
    erase_dead(weighted)


def fuse_attention(graph: fx.Graph) -> None:
    """Put `scaled_dot_product_attention` where attention is spelled out, in half precision with or without casts."""
    for node in calls(graph, aten.softmax.int):
        user, last = only_user(node), node
        if user is not None and _cast(user) is node:
            user, last = only_user(user), user
        if user is not None and is_call(user, *PRODUCTS) and 0 not in shape_of(node):
            _put(node, last, user)
    graph.eliminate_dead_code()


def _plain(node: Node) -> bool:
    """Whether attention has neither mask nor randomness, and heads that match one by one."""
    names = (argument.name for argument in node.target._schema.arguments)
    named = dict(zip(names, node.args)) | dict(node.kwargs)
    rest = ("attn_mask", "dropout_p", "is_causal", "enable_gqa")
    if any(named.get(name) for name in rest):
        return False
    q, k, v = (value_of(n) for n in node.args[:3])
    floats = all(t.dtype == torch.float32 and 0 not in t.shape for t in (q, k, v))
    return floats and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]


def own_attention(graph: fx.Graph) -> None:
    """Put `graph_ops.attention` where torch's would stand: as fast, and a tape can hold it."""
    for node in calls(graph, aten.scaled_dot_product_attention.default):
        if graph_ops.ATTENDS and len(node.args) >= 3 and _plain(node):
            scale, width = node.kwargs.get("scale"), shape_of(node.args[0])[-1]
            arguments = (*node.args[:3], width**-0.5 if scale is None else scale)
            replace(node, graph_ops.attention, arguments)
