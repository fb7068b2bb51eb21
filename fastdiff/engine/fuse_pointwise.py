"""Linear maps and 1x1 convolutions with the norm before them and the sum after them: `graph_ops.conv1x1`.

To it a linear map of rows (B, ..., C) is a 1x1 convolution of a map (B, C, ...) whose channels are last: the same
memory. So rows are traced back to the map that they view, and results forward to the map that they become.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from . import graph_ops
from .fuse_convs import parts_of
from .fuse_norms import is_float_map
from .graphs import Node, calls, erase_dead, is_call, only_user, shape_of, value_of
from .map_sums import current, factors_of, taken_by_products
from .move_views import new_call

aten = torch.ops.aten


@dataclass
class _Product:
    """A linear map in the making; all nodes but `linear` and `last` are maps."""

    linear: Node
    last: Node
    x: Node
    x2: Node | None = None
    norm: Node | None = None
    activate: bool = False
    residual: Node | None = None

    def size(self) -> list[int]:
        """Size of the result as a map: in two dimensions of pixels, if any of its maps has them."""
        maps = [self.x] if self.residual is None else [self.x, self.residual]
        pixels = max((shape_of(one)[2:] for one in maps), key=lambda size: len(size) == 2)
        return [shape_of(self.last)[0], shape_of(self.last)[-1], *pixels]


def _map_of(rows: Node) -> Node:
    """The map (B, C, ...) that rows of channels (B, ..., C) view, before its pixels were put in one line."""
    rank = len(shape_of(rows))
    if rank == 2:
        return rows
    if not is_call(rows, aten.permute.default) or list(rows.args[1]) != [0, *range(2, rank), 1]:
        order = [0, rank - 1, *range(1, rank - 1)]
        return new_call(rows.graph, value_of(rows).permute(order), aten.permute.default, rows, order)
    return _base(rows.args[0])


def _base(x: Node) -> Node:
    base = x.args[0] if is_call(x, aten.reshape.default) else x
    return base if len(shape_of(base)) == 4 and shape_of(base)[:2] == shape_of(x)[:2] else x


def _with_prologue(product: _Product) -> None:
    """Take in the norm or activation whose result only this product reads, and a concatenation."""
    x, node = product.x, product.linear
    while node is not x:  # through the views between them
        node = node.args[0]
        if only_user(node) is None:
            product.x, product.x2 = parts_of(x)
            return
    if is_call(x, graph_ops.norm_silu):
        base = _base(x.args[0])
        if len(shape_of(base)) == 4 and is_float_map(base):
            product.norm, product.activate, x = x, x.args[-1], base
    elif is_call(x, aten.silu.default):
        product.activate, x = True, x.args[0]
    product.x, product.x2 = parts_of(x)


def _takes(linear: Node, static: set[Node]) -> bool:
    value, weight = value_of(linear), linear.args[1]
    floats = value.dtype == torch.float32 and value.device.type == "cpu"
    return (
        weight in static
        and floats
        and 0 not in value.shape
        and len(value.shape) >= 2
        and len(shape_of(weight)) == 2
    )


def _product(linear: Node) -> _Product:
    with linear.graph.inserting_before(linear):
        product = _Product(linear, linear, _map_of(linear.args[0]))
    _with_prologue(product)
    user = only_user(linear)
    if user is not None and is_call(user, aten.add.Tensor) and user.kwargs.get("alpha", 1) == 1:
        other = user.args[1] if user.args[0] is linear else user.args[0]
        same = isinstance(other, fx.Node) and other is not linear and shape_of(other) == shape_of(linear)
        if same and value_of(other).dtype == torch.float32:
            with linear.graph.inserting_before(user):
                product.last, product.residual = user, _map_of(other)
    return product


def _sized(x: Node | None, size: list[int]) -> Node | None:
    """A map with its pixels in these dimensions."""
    x = current(x)
    if x is None or list(shape_of(x)[2:]) == size[2:]:
        return x
    shape = [*shape_of(x)[:2], *size[2:]]
    return new_call(x.graph, value_of(x).reshape(shape), aten.reshape.default, x, shape)


def _put_result(product: _Product, node: Node) -> None:
    """Give the result to whoever reads the last node, as the map that it becomes or as rows."""
    last, graph, size = product.last, node.graph, shape_of(node)
    user = only_user(last)
    while user is not None and is_call(user, aten.permute.default, aten.reshape.default):
        if shape_of(user) == size and _keeps_channels(user, last):
            user.replace_all_uses_with(node)
            erase_dead(user)
            return
        user = only_user(user)
    order, shape, rows = [0, *range(2, len(size)), 1], list(shape_of(last)), node
    if len(size) > 2:
        rows = new_call(graph, value_of(node).permute(order), aten.permute.default, node, order)
    if list(shape_of(rows)) != shape:
        rows = new_call(graph, value_of(rows).reshape(shape), aten.reshape.default, rows, shape)
    last.replace_all_uses_with(rows)
    erase_dead(last)


def _keeps_channels(user: Node, last: Node) -> bool:
    """Whether rows became a map by their channels going second, then at most by a reshape of the pixels."""
    rank = len(shape_of(last))
    moved = user.args[0] if is_call(user, aten.reshape.default) else user
    is_map = is_call(moved, aten.permute.default) and moved.args[0] is last
    return is_map and list(moved.args[1]) == [0, rank - 1, *range(1, rank - 1)]


def _put(product: _Product) -> None:
    graph, (_, weight, bias), size = product.linear.graph, product.linear.args, product.size()
    rows, pixel = factors_of(graph, product.norm, product.x, product.x2, product.last)
    with graph.inserting_before(product.last):
        packed = graph.call_function(graph_ops.pack_conv1x1, (weight,))
        maps = (_sized(product.x, size), _sized(product.x2, size))
        arguments = (*maps, packed, bias, rows, pixel, product.activate, _sized(product.residual, size), size)
        value = value_of(product.last).new_empty((size[0], *size[2:], size[1])).movedim(-1, 1)
        _put_result(product, new_call(graph, value, graph_ops.conv1x1, *arguments))


def fuse_pointwise(graph: fx.Graph, static: set[Node]) -> None:
    """Put `graph_ops.conv1x1` where weights multiply rows of channels, with what surrounds it."""
    for node in calls(graph, aten.linear.default):
        if graph_ops.CONVOLVES and _takes(node, static):
            _put(_product(node))
    taken_by_products(graph)
