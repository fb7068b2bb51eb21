"""Calls torch's own functions where a graph calls their ATen operations: the same values, microseconds less for each.

An operation called through Python's `OpOverload` costs two to five times what the function of the same meaning costs;
a small network at batch 1 has two hundred such calls beside some hundred kernels (docs/lab/engine.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from .graphs import Node, shape_of

aten = torch.ops.aten
#: Operations whose function takes the same arguments in the same places.
_SAME: dict[Any, Callable[..., Tensor]] = {
    aten.permute.default: torch.permute,
    aten.reshape.default: torch.reshape,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.squeeze.dim: torch.squeeze,
    aten.cat.default: torch.cat,
    aten.sin.default: torch.sin,
    aten.cos.default: torch.cos,
    aten.silu.default: torch.nn.functional.silu,
}
#: The same for operations of two operands, of which the first is a tensor.
_OF_TWO: dict[Any, Callable[..., Tensor]] = {
    aten.add.Tensor: torch.add,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
}


def _stretch(node: Node) -> tuple[int, int, int] | None:
    """(dimension, start, length) of a slice without steps."""
    _, dim, start, _, step = node.args
    if step != 1 or not isinstance(start, int | None):
        return None
    size, length = shape_of(node.args[0])[dim], shape_of(node)[dim]
    start = start or 0
    return dim, min(max(start + size if start < 0 else start, 0), size), length


def direct_calls(graph: fx.Graph) -> None:
    """Change the targets of calls; the graph's normalised arguments stay, but for slices, which become `narrow`."""
    for node in graph.nodes:
        if node.op != "call_function" or node.kwargs:
            continue
        if node.target in _SAME:
            node.target = _SAME[node.target]
        elif node.target in _OF_TWO and len(node.args) == 2 and isinstance(node.args[0], fx.Node):
            node.target = _OF_TWO[node.target]
        elif node.target is aten.slice.Tensor and len(node.args) == 5:
            stretch = _stretch(node)
            if stretch is not None:
                node.target, node.args = torch.narrow, (node.args[0], *stretch)
