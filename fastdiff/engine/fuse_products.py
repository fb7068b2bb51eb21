"""Linear maps, 1x1 and other convolutions: packed weights, and one product where several have the same input."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from . import graph_ops
from .fold import hoist
from .fuse_norms import is_float_map
from .fuse_pointwise import fuse_pointwise
from .graphs import Node, calls, erase_dead, is_call, only_user, shape_of, value_of
from .move_views import new_call, products_of_parts, sums_before_views

aten = torch.ops.aten


def _is_pointwise(node: Node, static: set[Node]) -> bool:
    """Whether a convolution multiplies every pixel's channels by a matrix of weights."""
    x, weight, _, stride, padding, _, groups = node.args
    numbers = [*stride, *padding]
    plain = groups == 1 and all(s == 1 for s in stride) and not any(padding) and len(numbers) > 0
    batched = len(shape_of(x)) == len(shape_of(weight))  # one sample without a batch has its channels first
    return plain and batched and weight in static and math.prod(shape_of(weight)[2:]) == 1 and is_float_map(x)


def pointwise_to_linear(graph: fx.Graph, static: set[Node]) -> None:
    """1x1 convolutions as linear maps of rows of channels, which is how they lie in memory."""
    for node in calls(graph, aten.conv2d.default, aten.conv1d.default):
        if not _is_pointwise(node, static):
            continue
        x, weight, bias = node.args[:3]
        rank = len(shape_of(x))
        last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
        value = value_of(node)
        with graph.inserting_before(node):
            rows = new_call(graph, value_of(x).permute(last), aten.permute.default, x, last)
            size = list(shape_of(weight)[:2])
            matrix = new_call(graph, value_of(weight).reshape(size), aten.reshape.default, weight, size)
            product = new_call(graph, value.permute(last), aten.linear.default, rows, matrix, bias)
            result = new_call(graph, value, aten.permute.default, product, first)
        node.replace_all_uses_with(result)
        graph.erase_node(node)


def join_linears(graph: fx.Graph, static: set[Node]) -> None:
    """Linear maps of the same input become one, whose result is cut apart: q, k and v; all time embeddings."""
    groups: dict[Any, list[Node]] = defaultdict(list)
    for node in calls(graph, aten.linear.default):
        x, weight, bias = node.args
        if weight in static and (bias is None or bias in static) and x not in static:
            groups[x, bias is None].append(node)
    for (x, no_bias), nodes in groups.items():
        if len(nodes) < 2:
            continue
        with graph.inserting_before(nodes[0]):
            weight = graph.call_function(graph_ops.joined, ([node.args[1] for node in nodes],))
            bias = None
            if not no_bias:
                bias = graph.call_function(graph_ops.joined, ([node.args[2] for node in nodes],))
            values = torch.cat([value_of(node) for node in nodes], dim=-1)
            weight.meta["val"] = torch.cat([value_of(node.args[1]) for node in nodes])
            whole, start = new_call(graph, values, aten.linear.default, x, weight, bias), 0
            for node in nodes:
                dim, end = len(shape_of(node)) - 1, start + shape_of(node)[-1]
                part = new_call(graph, value_of(node), aten.slice.Tensor, whole, dim, start, end, 1)
                node.replace_all_uses_with(part)
                start = end
        for node in nodes:
            graph.erase_node(node)


def _residual(node: Node) -> tuple[Node, Node] | None:
    """(the sum, what is added) where a linear map's result is only added to a tensor of its size."""
    user = only_user(node)
    if user is None or not is_call(user, aten.add.Tensor) or user.kwargs.get("alpha", 1) != 1:
        return None
    other = user.args[1] if user.args[0] is node else user.args[0]
    if not isinstance(other, fx.Node) or other is node or shape_of(other) != shape_of(node):
        return None
    return user, other


def pack_linears(graph: fx.Graph, static: set[Node]) -> None:
    """Linear maps with packed weights; a sum with a tensor of the result's size in the same place."""
    for node in calls(graph, aten.linear.default):
        x, weight, bias = node.args
        value = value_of(node)
        if weight not in static or value.dtype != torch.float32 or value.device.type != "cpu":
            continue
        if 0 in value.shape or len(value_of(weight).shape) != 2:
            continue
        rows, width = math.prod(value.shape[:-1]), value.shape[-1]
        residual = _residual(node)
        last = node if residual is None else residual[0]
        with graph.inserting_before(last):
            packed = graph.call_function(graph_ops.pack_linear, (weight, rows))
            if residual is None:
                new = new_call(graph, value, graph_ops.packed_linear, x, packed, bias, rows, width)
            else:
                arguments = (x, packed, bias, residual[1], rows, width)
                new = new_call(graph, value_of(last), graph_ops.packed_linear_add, *arguments)
        last.replace_all_uses_with(new)
        erase_dead(last)


def pack_convs(graph: fx.Graph, static: set[Node]) -> None:
    """The other convolutions through oneDNN, with weights in the order that it likes."""
    if not torch.backends.mkldnn.is_available():
        return
    for node in calls(graph, aten.conv2d.default):
        x, weight, bias, stride, padding, dilation, groups = node.args
        value = value_of(node)
        known = weight in static and (bias is None or bias in static) and len(shape_of(x)) == 4
        if not known or value.dtype != torch.float32 or value.device.type != "cpu" or 0 in value.shape:
            continue
        how = (list(stride), list(padding), list(dilation), groups)
        with graph.inserting_before(node):
            packed = graph.call_function(graph_ops.pack_conv, (weight, *how, list(shape_of(x))))
            new = new_call(graph, value, graph_ops.packed_conv, x, packed, bias, *how)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def fuse_products(graph: fx.Graph, weights: Sequence[Node]) -> None:
    """Put packed products where weights are multiplied."""
    static = hoist(graph, weights)
    pack_convs(graph, static)
    if not graph_ops.CONVOLVES:
        products_of_parts(graph, static)
    join_linears(graph, hoist(graph, weights))
    sums_before_views(graph)
    fuse_pointwise(graph, hoist(graph, weights))
    pack_linears(graph, hoist(graph, weights))
    graph.eliminate_dead_code()
