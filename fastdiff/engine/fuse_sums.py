"""Norms with the sums around them, on a GPU: `graph_ops.norm_silu_of_sum`.

    s = cat(conv(x) + bias + embedding + residual, skip);  y = norm(s);  others read s, too

is one launch where every sum would be one. What is added after a norm, and a concatenation before it, belongs to it as
well. A sum is opened up to two maps and two rows of channels; biases of convolutions are such rows.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from .fuse_norms import channel_rows, channel_vector, is_map, per_channel
from .graph_ops import norm_silu
from .graphs import (
    Node,
    calls,
    erase_dead,
    is_call,
    is_tensor,
    only_user,
    output_nodes,
    positions,
    shape_of,
    value_of,
)
from .live_ops import norm_silu_and_sum, norm_silu_of_sum
from .move_views import new_call

aten = torch.ops.aten
#: Numbers of a group up to which maps of two memory orders may meet; more would spill, or be read one by one.
FEW = 8192


@dataclass(frozen=True)
class Terms:
    """A sum: maps of one shape, and rows of channels, each (C,), or seen as (B, C, 1, ...).

    Attributes:
        maps: convolutions among them that were `opened` count without their bias, which is among the rows.
        rows: of channels.
        opened: convolutions.
    """

    maps: tuple[Node, ...] = ()
    rows: tuple[Node, ...] = ()
    opened: tuple[Node, ...] = ()

    def fits(self) -> bool:
        """Whether a norm takes so many."""
        return 1 <= len(self.maps) <= 2 and len(self.rows) <= 2

    def plus(self, other: Terms) -> Terms:
        """Both sums together."""
        return Terms(self.maps + other.maps, self.rows + other.rows, self.opened + other.opened)


def terms_of(node: Node, whole: Node, top: bool = False) -> Terms:
    """What a node adds up, opened where nobody but its sum reads it; at the top others may.

    Args:
        node: a map, or rows of channels.
        whole: a map of the shape and type of the sum.
        top: open it whoever reads it.
    """
    if per_channel(node, whole) and shape_of(node) != shape_of(whole):
        return Terms(rows=(node,))
    closed = Terms(maps=(node,))
    if not top and only_user(node) is None:
        return closed
    if is_call(node, aten.conv2d.default, aten.conv1d.default) and node.args[2] is not None:
        batched = len(shape_of(node)) == len(shape_of(node.args[1]))
        return replace(closed, rows=(node.args[2],), opened=(node,)) if batched else closed
    if not is_call(node, aten.add.Tensor) or node.kwargs.get("alpha", 1) != 1:
        return closed
    if any(not _is_term(term, whole) for term in node.args):
        return closed
    first, second = node.args
    left, right = (terms_of(term, whole) for term in node.args)
    for one in (left.plus(right), left.plus(_closed(second, right)), _closed(first, left).plus(right)):
        if one.fits():
            return one
    both = _closed(first, left).plus(_closed(second, right))
    return both if both.fits() else closed


def _closed(node: Node, terms: Terms) -> Terms:
    return terms if not terms.maps else Terms(maps=(node,))


def _is_term(node: Any, whole: Node) -> bool:
    if not is_tensor(node) or value_of(node).dtype != value_of(whole).dtype:
        return False
    return shape_of(node) == shape_of(whole) or per_channel(node, whole)


@dataclass
class _Norm:
    """A norm with sums in the making.

    Attributes:
        last: the node whose place it takes.
        norm: weight, bias, scale, shift, eps, activate of `graph_ops.norm_silu`, with the groups before them.
        terms: what is added up before it, x first.
        total: the node that is that sum, if others read it.
        x2: what is joined behind it.
        behind: what is added to the result.
        rows_last: the result's channels are wanted last in memory.
    """

    last: Node
    norm: tuple[Any, ...]
    terms: Terms
    total: Node | None = None
    x2: Node | None = None
    behind: Terms = field(default_factory=Terms)
    rows_last: bool = False

    @property
    def changes(self) -> bool:
        """Whether it is more than a norm."""
        more = len(self.terms.maps) > 1 or self.terms.rows or self.behind.maps or self.x2 is not None
        return bool(more) or self.rows_last

    def inputs(self) -> list[Node]:
        """All nodes that it reads, but for the convolutions without a bias that it will put in their place."""
        found = [
            *self.terms.maps,
            *self.terms.rows,
            *self.behind.maps,
            *self.behind.rows,
            self.x2,
            *self.norm,
        ]
        return [node for node in found if isinstance(node, fx.Node)]


def _order(node: Node) -> str:
    """How a map lies in memory: "first" or "last" (its channels), or "" for neither."""
    value = value_of(node)
    if value.is_contiguous():
        return "first"
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    form = formats.get(value.dim())
    return "last" if form is not None and value.is_contiguous(memory_format=form) else ""


def _few(node: Node, groups: int) -> bool:
    """Whether maps of two memory orders may meet in this norm."""
    shape = shape_of(node)
    return not groups or shape[1] // groups * math.prod(shape[2:]) <= FEW


def _ordered(terms: Terms, whole: Node, few: bool) -> Terms | None:
    """The terms with a map first that lies like the sum; None where there is none, or the others lie badly."""
    order, maps = _order(whole), list(terms.maps)
    mine = next((i for i, one in enumerate(maps) if order and _order(one) == order), None)
    if mine is None:
        return None
    x = maps.pop(mine)
    if any(_order(one) != order and not (few and _order(one)) for one in maps):
        return None
    return replace(terms, maps=(x, *maps))


def _before(node: Node) -> _Norm:
    """The norm with the sum and the concatenation before it."""
    s, groups = node.args[0], node.args[1]
    plain = _Norm(node, node.args[1:], Terms(maps=(s,)))
    if not is_map(s) or len(shape_of(s)) < 3 or not _order(s) or 0 in shape_of(s):
        return plain
    total = s if only_user(s) is None else None
    first, x2 = _parts(s)
    terms = _ordered(
        terms_of(first, first, top=x2 is None or only_user(first) is not None), first, _few(s, groups)
    )
    if terms is None or _order(first) != _order(s):
        terms = Terms(maps=(first,))
    if x2 is None and terms.maps == (s,) and not terms.rows:
        return plain
    if x2 is not None and (_order(first) != _order(s) or (_order(x2) != _order(s) and not _few(s, groups))):
        return plain
    return replace(plain, terms=terms, x2=x2, total=total)


def _parts(s: Node) -> tuple[Node, Node | None]:
    """The two maps that a concatenation of channels joins."""
    if is_call(s, aten.cat.default) and len(s.args[0]) == 2 and s.args[1] in (1, 1 - len(shape_of(s))):
        first, second = s.args[0]
        same = all(value_of(part).dtype == value_of(s).dtype and _order(part) for part in (first, second))
        if same:
            return first, second
    return s, None


def _behind(norm: _Norm) -> _Norm:
    """The norm with the residual that is added to its result."""
    user = only_user(norm.last)
    if norm.x2 is not None or len(norm.terms.maps) > 1 or len(norm.terms.rows) > 1:
        return norm
    if user is None or not is_call(user, aten.add.Tensor) or user.kwargs.get("alpha", 1) != 1:
        return norm
    other = user.args[1] if user.args[0] is norm.last else user.args[0]
    if other is norm.last or not _is_term(other, user) or shape_of(other) != shape_of(user):
        return norm
    if shape_of(norm.last) != shape_of(user) or value_of(norm.last).dtype != value_of(user).dtype:
        return norm
    order, few = _order(norm.last), _few(user, norm.norm[0])
    terms = terms_of(other, user) if is_call(other, aten.conv2d.default) else Terms(maps=(other,))
    lies = _order(other) == order or (few and _order(other))
    return replace(norm, last=user, behind=terms) if order and order == _order(user) and lies else norm


def _feeds_rows(y: Node) -> bool:
    """Whether a result (B, C, H, W) is only read as rows (B, H * W, C) by linear maps."""
    if len(shape_of(y)) != 4 or _order(y) != "first":
        return False
    flat = only_user(y)
    if flat is None or not is_call(flat, aten.reshape.default):
        return False
    if shape_of(flat) != (*shape_of(y)[:2], math.prod(shape_of(y)[2:])):
        return False
    turned = [
        user for user in flat.users if is_call(user, aten.permute.default) and list(user.args[1]) == [0, 2, 1]
    ]
    readers = [reader for user in turned for reader in user.users]
    return len(turned) == len(flat.users) and all(is_call(reader, aten.linear.default) for reader in readers)


def _place(norm: _Norm, node: Node) -> Node | None:
    """The node before which it can stand: its own place, or earlier, where others read the sum before that."""
    if norm.total is None:
        return norm.last
    order = positions(node.graph)
    others = [order[user] for user in norm.total.users if user is not node]
    if not others or order[norm.last] < min(others):
        return norm.last
    latest = max(norm.inputs(), key=lambda one: order[one])
    after = latest.next
    while after.op == "placeholder":
        after = after.next
    return after if order[latest] < min(others) and norm.last is node else None


def _without_bias(conv: Node, terms: Terms) -> Node:
    """A map of a sum; a convolution without its bias, if it was opened. Its other readers read the sum from here on."""
    if conv not in terms.opened:
        return conv
    with conv.graph.inserting_after(conv):
        args = (*conv.args[:2], None, *conv.args[3:])
        new = conv.graph.call_function(conv.target, args, dict(conv.kwargs))
    new.meta = dict(conv.meta)
    return new


def _rows(row: Node | None, like: Node) -> Node | None:
    if row is None or len(shape_of(row)) == 1:
        return row
    vector = channel_vector(row, like) if shape_of(row)[0] == 1 else None
    return channel_rows(row, like) if vector is None else vector


def _put(norm: _Norm, node: Node) -> None:
    place = _place(norm, node)
    if place is None:
        return
    graph = node.graph
    maps = [_without_bias(one, norm.terms) for one in norm.terms.maps]
    behind = [_without_bias(one, norm.behind) for one in norm.behind.maps]
    with graph.inserting_before(place):
        rows = [_rows(row, norm.terms.maps[0]) for row in (*norm.terms.rows, *norm.behind.rows)]
        if norm.behind.maps and not norm.terms.rows:
            rows.insert(0, None)
        add, residual_add = (*rows, None, None)[:2]
        residual = (*maps[1:], *behind, None)[0]
        arguments = (maps[0], *norm.norm, add, residual, residual_add, norm.x2, bool(behind), norm.rows_last)
        target = norm_silu_of_sum if norm.total is None else norm_silu_and_sum
        new = graph.call_function(target, arguments)
        y = new
        if norm.total is not None:
            y, s = (
                graph.call_function(operator.getitem, (new, 0)),
                graph.call_function(operator.getitem, (new, 1)),
            )
            s.meta = dict(norm.total.meta)
    y.meta = dict(norm.last.meta)
    if norm.rows_last:
        y.meta["val"] = value_of(y).contiguous(memory_format=torch.channels_last)
    if norm.total is not None:
        new.meta["val"] = (y.meta["val"], s.meta["val"])
        norm.total.replace_all_uses_with(s, delete_user_cb=lambda user: user not in (node, new))
    elif norm.last is not new:
        new.meta["val"] = y.meta["val"]
    norm.last.replace_all_uses_with(y)
    erase_dead(norm.last)


def _norms_before_views(graph: fx.Graph) -> None:
    """The norm of a map whose pixels were put in one line is that of the map."""
    for node in calls(graph, norm_silu):
        flat = node.args[0]
        source = flat.args[0] if is_call(flat, aten.reshape.default) else None
        if not is_map(source) or shape_of(source)[:2] != shape_of(flat)[:2] or len(shape_of(source)) != 4:
            continue
        with graph.inserting_before(node):
            value = value_of(source).new_empty(shape_of(source), dtype=value_of(node).dtype)
            moved = new_call(graph, value, norm_silu, source, *node.args[1:])
            back = new_call(graph, value_of(node), aten.reshape.default, moved, list(shape_of(node)))
        node.replace_all_uses_with(back)
        erase_dead(node)


def fuse_sums(graph: fx.Graph) -> None:
    """Put `norm_silu_of_sum` where maps are added up or joined around a norm, or its result is read as rows."""
    _norms_before_views(graph)
    returned = {node for node in output_nodes(graph) if isinstance(node, fx.Node)}
    for node in calls(graph, norm_silu):
        norm = _before(node)
        if norm.total is not None and norm.total in returned and _order(norm.total) == "":
            continue
        norm = _behind(norm)
        if norm.last is node and _few(node, node.args[1]) and _feeds_rows(node):
            norm = replace(norm, rows_last=True)
        if norm.changes:
            _put(norm, node)
    graph.eliminate_dead_code()
