"""Statistics of maps for the norms that follow: taken by the product that makes a map, in the same pass.

A product that gives statistics returns a pair; the nodes of its two parts stand right behind it.
"""

from __future__ import annotations

import operator

from torch import fx

from . import graph_ops
from .graphs import Node, calls, is_call, shape_of

_MAKERS = (graph_ops.conv3x3, graph_ops.conv1x1)


def _part(maker: Node, index: int) -> Node:
    return next(user for user in maker.users if is_call(user, operator.getitem) and user.args[1] == index)


def current(node: Node | None) -> Node | None:
    """The node that holds a value now: a product that gives statistics gives a pair."""
    return _part(node, 0) if node is not None and is_call(node, *_MAKERS) and node.kwargs else node


def _split(graph: fx.Graph, maker: Node) -> Node:
    with graph.inserting_after(maker):
        value = graph.call_function(operator.getitem, (maker, 0))
    with graph.inserting_after(value):
        sums = graph.call_function(operator.getitem, (maker, 1))
    value.meta = dict(maker.meta)
    maker.replace_all_uses_with(value, delete_user_cb=lambda user: user not in (value, sums))
    maker.kwargs = {"statistics": True}
    return sums


def statistics_of(graph: fx.Graph, x: Node) -> Node:
    """Partial statistics of a map: from the product that makes it, or by reading it."""
    if is_call(x, operator.getitem) and is_call(x.args[0], *_MAKERS):
        return _part(x.args[0], 1)
    if is_call(x, *_MAKERS):
        return _part(x, 1) if x.kwargs else _split(graph, x)
    for user in x.users:
        if is_call(user, graph_ops.statistics_of):
            return user
    after = x.next
    while after.op == "placeholder":
        after = after.next
    with graph.inserting_before(after):
        return graph.call_function(graph_ops.statistics_of, (x,))


def factors_of(
    graph: fx.Graph, norm: Node | None, x: Node, x2: Node | None, before: Node
) -> tuple[Node | None, Node | None]:
    """Factors of channels and of pixels for a norm of one or two maps, computed before a node."""
    if norm is None:
        return None, None
    _, groups, weight, bias, scale, shift, eps, _ = norm.args
    maps = [x] if x2 is None else [x, x2]
    size = (shape_of(x)[0], sum(shape_of(part)[1] for part in maps))
    if groups:
        sums = [statistics_of(graph, part) for part in maps]
        with graph.inserting_before(before):
            second = sums[1] if sums[1:] else None
            arguments = (sums[0], second, groups, weight, bias, scale, shift, eps, size[1])
            return graph.call_function(graph_ops.group_factors, arguments), None
    with graph.inserting_before(before):
        rows = graph.call_function(graph_ops.channel_factors, (*size, weight, scale, shift))
        return rows, graph.call_function(graph_ops.pixel_factors, (current(x), current(x2), eps))


def taken_by_products(graph: fx.Graph) -> None:
    """Statistics that read a map are taken where it is made, if a product that came later now makes it."""
    for node in calls(graph, graph_ops.statistics_of):
        x = node.args[0]
        if is_call(x, *_MAKERS) or (is_call(x, operator.getitem) and is_call(x.args[0], *_MAKERS)):
            node.replace_all_uses_with(statistics_of(graph, x))
            graph.erase_node(node)
