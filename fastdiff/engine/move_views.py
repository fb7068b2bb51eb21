"""Moves sums and concatenations past changes of shape, to where a product can take them in.

An attention block ends in linear -> views -> + x. The sum is the same before the views, with x seen through their
inverse; there it is part of the product. A 1x1 convolution of a concatenation is the sum of two products, which read
both maps where they lie.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .graphs import Node, calls, erase_dead, is_call, only_user, shape_of, value_of

aten = torch.ops.aten


def new_call(graph: fx.Graph, value: Any, target: Any, *args: Any) -> Node:
    """A call at the graph's insertion point, with the value that it has."""
    node = graph.call_function(target, args)
    node.meta["val"] = value
    return node


def _inverted(graph: fx.Graph, other: Node, views: list[Node]) -> Node:
    """A tensor of the last view's shape, seen as if it had gone through the views backwards."""
    for view in reversed(views):
        if is_call(view, aten.permute.default):
            order = view.args[1]
            inverse = [order.index(d) for d in range(len(order))]
            other = new_call(graph, value_of(other).permute(inverse), aten.permute.default, other, inverse)
        else:
            size = list(shape_of(view.args[0]))
            other = new_call(graph, value_of(other).reshape(size), aten.reshape.default, other, size)
    return other


def _views_behind(node: Node) -> tuple[Node, list[Node]] | None:
    """(linear map, views of its result) where nobody else reads either."""
    views: list[Node] = []
    while is_call(node, aten.permute.default, aten.reshape.default) and only_user(node) is not None:
        views.insert(0, node)
        node = node.args[0]
    linear = is_call(node, aten.linear.default) and only_user(node) is not None
    return (node, views) if linear and views else None


def sums_before_views(graph: fx.Graph) -> None:
    """(views of a linear map) + x becomes views of (the linear map + x seen backwards)."""
    for node in calls(graph, aten.add.Tensor):
        for mine, other in ((0, 1), (1, 0)):
            term, rest = node.args[mine], node.args[other]
            if not isinstance(rest, fx.Node) or node.kwargs.get("alpha", 1) != 1:
                continue
            found = _views_behind(term) if isinstance(term, fx.Node) else None
            if found is None or shape_of(rest) != shape_of(node) or rest is term:
                continue
            linear, views = found
            with graph.inserting_before(node):
                backwards = _inverted(graph, rest, views)
                result = new_call(graph, value_of(linear), aten.add.Tensor, linear, backwards)
                for view in views:
                    result = new_call(graph, value_of(view), view.target, result, view.args[1])
            node.replace_all_uses_with(result)
            erase_dead(node)
            break


def _concatenation(x: Node) -> Node | None:
    """The concatenation of two maps' channels whose rows of channels x is."""
    if not is_call(x, aten.permute.default) or not is_call(x.args[0], aten.cat.default):
        return None
    rank, cat = len(shape_of(x)), x.args[0]
    channels = cat.args[1] % rank == 1 and list(x.args[1]) == [0, *range(2, rank), 1]
    return cat if channels and len(cat.args[0]) == 2 else None


def products_of_parts(graph: fx.Graph, static: set[Node]) -> None:
    """A linear map of concatenated channels becomes the sum of two, one for each part."""
    for node in calls(graph, aten.linear.default):
        x, weight, bias = node.args
        cat = _concatenation(x)
        if cat is None or weight not in static or value_of(node).dtype != torch.float32:
            continue
        start, terms, value = 0, [], value_of(node)
        with graph.inserting_before(node):
            for part in cat.args[0]:
                end = start + shape_of(part)[1]
                piece = new_call(
                    graph, value_of(weight)[:, start:end], aten.slice.Tensor, weight, 1, start, end, 1
                )
                rows = new_call(
                    graph, value_of(part).permute(x.args[1]), aten.permute.default, part, x.args[1]
                )
                terms.append(
                    new_call(graph, value, aten.linear.default, rows, piece, None if start else bias)
                )
                start = end
            result = new_call(graph, value, aten.add.Tensor, terms[0], terms[1])
        node.replace_all_uses_with(result)
        erase_dead(node)
