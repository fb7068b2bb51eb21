"""Linear maps of one small input become one, on a GPU: a network's time embeddings.

Each is a launch of a few microseconds that reads one weight. Weights stay where they are, so they are joined at every
call: two launches and two more passes over the weights, which pays where the maps are several and the weights few.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import fx

from .graphs import Node, calls, shape_of, value_of
from .move_views import new_call

aten = torch.ops.aten
#: Fewer are not joined: joining takes two launches itself.
LEAST = 5
#: Bytes of weights; to copy more takes longer than the launches that it saves.
MOST_BYTES = 32 << 20


def join_linears(graph: fx.Graph) -> None:
    """Put one linear map in the place of several that read the same rows (B, K)."""
    groups: dict[Any, list[Node]] = defaultdict(list)
    for node in calls(graph, aten.linear.default):
        x, weight, bias = node.args
        given = weight.op == "placeholder" and (bias is None or bias.op == "placeholder")
        if given and len(shape_of(x)) == 2 and len(shape_of(weight)) == 2:
            groups[x, bias is None, value_of(node).dtype].append(node)
    for (x, no_bias, _), nodes in groups.items():
        size = sum(value_of(node.args[1]).nbytes for node in nodes)
        if len(nodes) >= LEAST and size <= MOST_BYTES:
            _join(graph, x, nodes, no_bias)


def _join(graph: fx.Graph, x: Node, nodes: list[Node], no_bias: bool) -> None:
    with graph.inserting_before(nodes[0]):
        weight = _cat(graph, [node.args[1] for node in nodes], 0)
        bias = None if no_bias else _cat(graph, [node.args[2] for node in nodes], 0)
        value = torch.cat([value_of(node) for node in nodes], dim=1)
        whole, start = new_call(graph, value, aten.linear.default, x, weight, bias), 0
        for node in nodes:
            end = start + shape_of(node)[1]
            part = new_call(graph, value[:, start:end], aten.slice.Tensor, whole, 1, start, end, 1)
            node.replace_all_uses_with(part)
            start = end
    for node in nodes:
        graph.erase_node(node)


def _cat(graph: fx.Graph, parts: list[Node], dim: int) -> Node:
    return new_call(graph, torch.cat([value_of(part) for part in parts], dim), aten.cat.default, parts, dim)
