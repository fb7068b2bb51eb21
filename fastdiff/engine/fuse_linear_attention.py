"""Linear attention written by hand, softmax(q) (softmax(k)^T v), becomes one `graph_ops.linear_attention`.

The softmax of q is over its width, that of k over its rows; products are einsums or matrix products in any order of
dimensions. Keys and values that begin with rows made from weights (memory tokens) are read through two pointers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from . import graph_ops
from .fuse_attention import PRODUCTS, product_of, unscaled
from .graphs import Node, calls, erase_dead, is_call, only_user, shape_of, value_of
from .move_views import new_call

aten = torch.ops.aten


@dataclass(frozen=True)
class _Operand:
    """A tensor with a letter for each dimension."""

    node: Node
    letters: str

    def ordered(self, wanted: str) -> Node:
        """The tensor with its dimensions in the wanted order."""
        order = [self.letters.index(c) for c in wanted]
        value = value_of(self.node).permute(order)
        return new_call(self.node.graph, value, aten.permute.default, self.node, order)

    def split(self, letter: str) -> tuple[_Operand | None, _Operand]:
        """Both parts of a concatenation of two along a dimension; (None, the whole) of anything else."""
        if is_call(self.node, aten.cat.default) and len(self.node.args[0]) == 2:
            dim = self.node.args[1] % len(self.letters) if len(self.node.args) > 1 else 0
            if self.letters[dim] == letter:
                first, second = self.node.args[0]
                return _Operand(first, self.letters), _Operand(second, self.letters)
        return None, self


@dataclass(frozen=True)
class _Found:
    """The three operands, in letters of one alphabet: b batch and heads, n queries, m keys, d width of q, e of v."""

    q: _Operand
    k: _Operand
    v: _Operand
    out: str
    scale: float


def _softmax(node: Node, letters: str) -> tuple[_Operand, str, float] | None:
    """What a softmax reads, the letter that it is over, and the number that its result is multiplied by."""
    node, scale = unscaled(node)
    if not is_call(node, aten.softmax.int) or only_user(node) is None:
        return None
    if value_of(node).dtype != torch.float32 or value_of(node.args[0]).dtype != torch.float32:
        return None
    return _Operand(node.args[0], letters), letters[node.args[1] % len(letters)], scale


def _found(last: Node) -> _Found | None:
    outer = product_of(last)
    if outer is None:
        return None
    for mine in (0, 1):
        context, q = (outer.first, outer.second)[:: 1 - 2 * mine]
        inner = product_of(context)
        if inner is None or only_user(context) is not last:
            continue
        renamed = dict(zip(outer.letters[mine], inner.letters[2]))
        rest = [c for c in outer.letters[1 - mine] if c not in renamed]
        if len(rest) != 1 or any(c not in (*renamed, *rest) for c in outer.letters[2]):
            continue
        renamed[rest[0]] = "*"
        q_letters, out = (
            "".join(renamed[c] for c in part) for part in (outer.letters[1 - mine], outer.letters[2])
        )
        found = _with_keys(inner.first, inner.second, inner.letters, q, q_letters, out) or _with_keys(
            inner.second,
            inner.first,
            (inner.letters[1], inner.letters[0], inner.letters[2]),
            q,
            q_letters,
            out,
        )
        if found is not None:
            return found
    return None


def _with_keys(
    k: Node, v: Node, letters: tuple[str, str, str], q: Node, q_letters: str, out: str
) -> _Found | None:
    queries, keys = _softmax(q, q_letters), _softmax(k, letters[0])
    if queries is None or keys is None or value_of(v).dtype != torch.float32:
        return None
    of_k, of_v, of_c = (set(part) for part in letters)
    batch, rows = of_k & of_v & of_c, of_k & of_v - of_c
    width, value = of_k & of_c - of_v, of_v & of_c - of_k
    single = len(rows) == len(width) == len(value) == 1 and len(batch) == 2
    if not single or keys[1] not in rows or queries[1] not in width:
        return None
    if set(q_letters) != batch | width | {"*"} or set(out) != batch | value | {"*"}:
        return None
    order = "".join(c for c in letters[2] if c in batch)
    names = dict(zip((*order, *rows, *width, *value, "*"), "bhmden"))
    named = ["".join(names[c] for c in part) for part in (q_letters, letters[0], letters[1], out)]
    return _Found(
        _Operand(queries[0].node, named[0]),
        _Operand(keys[0].node, named[1]),
        _Operand(v, named[2]),
        named[3],
        queries[2] * keys[2],
    )


def _put(last: Node, found: _Found) -> None:
    graph = last.graph
    memory_k, k = found.k.split("m")
    memory_v, v = found.v.split("m")
    if memory_k is None or memory_v is None or _rows(memory_k) != _rows(memory_v):
        memory_k, k, memory_v, v = None, found.k, None, found.v
    with graph.inserting_before(last):
        q = found.q.ordered("bhnd")
        keys = [None if x is None else x.ordered("bhmd") for x in (k, memory_k)]
        values = [None if x is None else x.ordered("bhme") for x in (v, memory_v)]
        result = graph.call_function(
            graph_ops.linear_attention, (q, keys[0], values[0], keys[1], values[1], found.scale)
        )
        size = (*shape_of(q)[:3], shape_of(values[0])[3])
        result.meta["val"] = value_of(last).new_empty([size[i] for i in (0, 2, 1, 3)]).transpose(1, 2)
        order = ["bhne".index(c) for c in found.out]
        node = new_call(graph, value_of(result).permute(order), aten.permute.default, result, order)
    last.replace_all_uses_with(node)
    erase_dead(last)


def _rows(operand: _Operand) -> int:
    return shape_of(operand.node)[operand.letters.index("m")]


def fuse_linear_attention(graph: fx.Graph) -> None:
    """Put `graph_ops.linear_attention` where it is spelled out in float32."""
    if not graph_ops.ATTENDS_LINEARLY:
        return
    for node in calls(graph, *PRODUCTS):
        if node.users and value_of(node).dtype == torch.float32 and 0 not in shape_of(node):
            found = _found(node)
            if found is not None:
                _put(node, found)
    graph.eliminate_dead_code()
