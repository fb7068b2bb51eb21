"""Recognises the compiled operations of this package in a graph, which write into an output made beforehand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from .graph_ops import attention, linear_attention, norm_silu
from .graphs import Node, is_call, positions


def _arguments(node: Node) -> tuple[Any, ...]:
    if "group_norm" in str(node.target):
        _, _, x, weight, bias, scale, shift, groups, eps, activate = node.args
        return x, groups, weight, bias, scale, shift, eps, activate
    _, x, weight, scale, shift, eps, activate = node.args
    return x, 0, weight, None, scale, shift, eps, activate


def _norms() -> list[Any]:
    """The forward norms of all backends that are registered here."""
    ops = torch.ops.fastdiff
    names = [
        f"{norm}_norm_silu_{backend}" for norm in ("group", "rms") for backend in ("cpp", "cuda", "triton")
    ]
    return [getattr(ops, name).default for name in names if hasattr(ops, name)]


def _attentions() -> list[Any]:
    names = ("attention_cpp", "attention_triton")
    return [getattr(torch.ops.fastdiff, n).default for n in names if hasattr(torch.ops.fastdiff, n)]


def _linear_attentions() -> list[Any]:
    ops = torch.ops.fastdiff
    return [ops.linear_attention_cpp.default] if hasattr(ops, "linear_attention_cpp") else []


def recognise(graph: fx.Graph) -> None:
    """Replace the norms and attention of this package, of any backend, by functions that return their results."""
    norms, attentions, linear = _norms(), _attentions(), _linear_attentions()
    target: Any
    for node in list(graph.nodes):
        if is_call(node, *norms):
            target, arguments = norm_silu, _arguments(node)
        elif is_call(node, *attentions) and node.args[1] is None:
            target, arguments = attention, node.args[2:]
        elif is_call(node, *linear):
            _, q, k, v, scale, memory_k, memory_v = node.args
            target, arguments = linear_attention, (q, k, v, memory_k, memory_v, scale)
        else:
            continue
        out, order = node.args[0], positions(graph)
        with graph.inserting_before(node):
            new = graph.call_function(target, arguments)
        new.meta = dict(out.meta)
        for user in list(out.users):
            if user is not node and order[user] > order[node]:
                user.replace_input_with(out, new)
        graph.erase_node(node)
