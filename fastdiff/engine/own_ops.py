"""Recognises the compiled operations of this package in a graph, which write into an output made beforehand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fastdiff.ops import extension

from .graphs import Node, is_call, positions
from .kernels import norm_silu


def _arguments(node: Node) -> tuple[Any, ...]:
    if is_call(node, torch.ops.fastdiff.group_norm_silu_cpp.default):
        _, _, x, weight, bias, scale, shift, groups, eps, activate = node.args
        return x, groups, weight, bias, scale, shift, eps, activate
    _, x, weight, scale, shift, eps, activate = node.args
    return x, 0, weight, None, scale, shift, eps, activate


def recognise(graph: fx.Graph) -> None:
    """Replace calls of `group_norm_silu_cpp` and `rms_norm_silu_cpp` by `kernels.norm_silu`."""
    if extension.MISSING:
        return
    norms = (torch.ops.fastdiff.group_norm_silu_cpp.default, torch.ops.fastdiff.rms_norm_silu_cpp.default)
    for node in list(graph.nodes):
        if not is_call(node, *norms):
            continue
        out, order = node.args[0], positions(graph)
        with graph.inserting_before(node):
            new = graph.call_function(norm_silu, _arguments(node))
        new.meta = dict(out.meta)
        for user in list(out.users):
            if user is not node and order[user] > order[node]:
                user.replace_input_with(out, new)
        graph.erase_node(node)
