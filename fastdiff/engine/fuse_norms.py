"""Group norm or RMS norm over channels, the scale and shift and the SiLU that follow: one `graph_ops.norm_silu`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from fastdiff.ops.arguments import FLOATS

from .graph_ops import norm_silu
from .graphs import Node, calls, is_call, is_tensor, only_user, shape_of, value_of

aten = torch.ops.aten
_CASTS = (aten.to.dtype, aten._to_copy.default)
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Norm:
    """The arguments of a `graph_ops.norm_silu` in the making, and the last node that it stands for."""

    last: Node
    x: Node
    groups: int
    weight: Node | None
    bias: Node | None
    eps: float
    scale: Node | None = None
    shift: Node | None = None
    activate: bool = False

    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the call."""
        return (
            *(self.x, self.groups, self.weight, self.bias),
            *(self.scale, self.shift, self.eps, self.activate),
        )


def is_float_map(node: Any) -> bool:
    """Whether this argument is a float32 tensor (B, C, ...) with at least one pixel."""
    return is_tensor(node) and value_of(node).dtype == torch.float32 and len(shape_of(node)) >= 2


def is_map(node: Any) -> bool:
    """Whether this argument is a tensor (B, C, ...) of a type that the norms take."""
    return is_tensor(node) and value_of(node).dtype in FLOATS and len(shape_of(node)) >= 2


def per_channel(node: Any, x: Node) -> bool:
    """Whether a tensor is (B, C, 1, ...) or (1, C, 1, ...) beside x (B, C, ...)."""
    if not is_tensor(node) or value_of(node).dtype not in FLOATS:
        return False
    shape, like = shape_of(node), shape_of(x)
    fits = len(shape) == len(like) and shape[0] in (1, like[0]) and shape[1] == like[1]
    return fits and all(size == 1 for size in shape[2:]) and len(like) > 2


def channel_rows(node: Node, x: Node) -> Node:
    """The same numbers as a (B, C) tensor; the new nodes are inserted at the graph's insertion point."""
    graph, rows = node.graph, shape_of(x)[:2]
    source = node
    while is_call(source, aten.unsqueeze.default, aten.reshape.default) and len(shape_of(source)) > 2:
        source = source.args[0]
    if shape_of(source) == rows:
        return source
    flat = [shape_of(node)[0], rows[1]]
    result = graph.call_function(aten.reshape.default, (node, flat))
    result.meta["val"] = value_of(node).reshape(flat)
    if flat[0] != rows[0]:
        result = graph.call_function(aten.expand.default, (result, list(rows)))
        result.meta["val"] = value_of(node).reshape(flat).expand(rows)
    return result


def channel_vector(node: Node, x: Node) -> Node | None:
    """The same numbers as a (C,) tensor where they do not depend on the sample."""
    channels = shape_of(x)[1]
    if math.prod(shape_of(node)) != channels:
        return None
    result = node.graph.call_function(aten.reshape.default, (node, [channels]))
    result.meta["val"] = value_of(node).reshape(channels)
    return result


#: How rows of a scale become a map, in networks.
_VIEWS = (
    *(aten.view.default, aten.reshape.default, aten.unsqueeze.default, aten.expand.default, aten.select.int),
    *(aten.slice.Tensor, aten.transpose.int, aten.permute.default, aten.squeeze.dim),
)


def _computed(graph: fx.Graph, target: Any, *args: Any) -> Node:
    node = graph.call_function(target, args)
    node.meta["val"] = target(*fx.map_arg(args, value_of))
    return node


def _minus_one(factor: Node) -> Node | None:
    """scale, from what is written as 1 + scale or a view of it; taking 1 from another factor would cost it digits."""
    if is_call(factor, aten.add.Tensor) and factor.args[1] == 1 and factor.kwargs.get("alpha", 1) == 1:
        return factor.args[0]
    if not is_call(factor, *_VIEWS):
        return None
    scale = _minus_one(factor.args[0])
    return None if scale is None else _computed(factor.graph, factor.target, scale, *factor.args[1:])


def _other(user: Node, node: Node) -> Any:
    return user.args[1] if user.args[0] is node else user.args[0]


def _scaled(norm: Norm, user: Node) -> Norm | None:
    """The norm with the scale or shift that `user` applies."""
    graph = user.graph
    if norm.activate or norm.shift is not None or not is_tensor(user):
        return None
    if value_of(user).dtype != value_of(norm.last).dtype:
        return None
    if is_call(user, aten.add.Tensor) and user.kwargs.get("alpha", 1) == 1:
        shift = _other(user, norm.last)
        if per_channel(shift, norm.x):
            with graph.inserting_before(user):
                return replace(norm, last=user, shift=channel_rows(shift, norm.x))
    if norm.scale is not None:
        return None
    if is_call(user, aten.mul.Tensor):
        factor = _other(user, norm.last)
        if per_channel(factor, norm.x):
            with graph.inserting_before(user):
                scale = _minus_one(factor)
                if scale is None:
                    return None
                return replace(norm, last=user, scale=channel_rows(scale, norm.x))
    if is_call(user, aten.addcmul.default) and user.kwargs.get("value", 1) == 1:
        shift, factor = user.args[0], user.args[2] if user.args[1] is norm.last else user.args[1]
        if per_channel(shift, norm.x) and per_channel(factor, norm.x):
            with graph.inserting_before(user):
                scale = _minus_one(factor)
                if scale is None:
                    return None
                rows = channel_rows(scale, norm.x), channel_rows(shift, norm.x)
                return replace(norm, last=user, scale=rows[0], shift=rows[1])
    return None


def _followed(norm: Norm) -> Norm:
    """The norm with all that directly follows it and belongs to it."""
    while (user := only_user(norm.last)) is not None and not norm.activate:
        if is_call(user, aten.silu.default):
            return replace(norm, last=user, activate=True)
        longer = _scaled(norm, user)
        if longer is None:
            break
        norm = longer
    return norm


def _in_half(norm: Norm) -> Norm:
    """A norm of a half-precision map that is cast up before it and down after it needs neither cast."""
    user, source = only_user(norm.last), norm.x.args[0] if is_call(norm.x, *_CASTS) else None
    if user is None or not is_call(user, *_CASTS) or not is_tensor(source):
        return norm
    dtype = value_of(source).dtype
    back = dtype in _HALF and value_of(user).dtype == dtype and shape_of(source) == shape_of(norm.x)
    return replace(norm, last=user, x=source) if back else norm


def _put(norm: Norm) -> None:
    with norm.last.graph.inserting_before(norm.last):
        node = norm.last.graph.call_function(norm_silu, norm.arguments())
    node.meta = dict(norm.last.meta)
    norm.last.replace_all_uses_with(node)


def _group_norm(node: Node) -> Norm | None:
    x, groups, weight, bias, eps = node.args[:5]
    if not is_map(x) or any(w is not None and value_of(w).dtype not in FLOATS for w in (weight, bias)):
        return None
    return _in_half(Norm(node, x, groups, weight, bias, eps))


def _rms_norm(node: Node) -> Norm | None:
    """x / max(|x|, eps) over channels, times what follows of numbers and weights."""
    x, below = node.args
    below = below.args[0] if is_call(below, aten.expand.default, aten.expand_as.default) else below
    if not is_call(below, aten.clamp_min.default) or not is_call(
        below.args[0], aten.linalg_vector_norm.default
    ):
        return None
    source, order, dims, keep = below.args[0].args[:4]
    if len(shape_of(x)) < 3:  # a matrix: weights that are normalised, not a map
        return None
    if source is not x or not is_map(x) or order != 2 or list(dims or []) != [1] or not keep:
        return None
    return _with_factors(Norm(node, x, 0, None, None, below.args[1]))


def _with_factors(norm: Norm) -> Norm:
    root = math.sqrt(shape_of(norm.x)[1])
    number, weight, graph = 1.0 / root, None, norm.last.graph
    while (user := only_user(norm.last)) is not None and is_call(user, aten.mul.Tensor):
        factor = _other(user, norm.last)
        if isinstance(factor, (int, float)):
            number *= factor
        elif weight is None and per_channel(factor, norm.x) and shape_of(factor)[0] == 1:
            weight = factor
        else:
            break
        norm = replace(norm, last=user)
    with graph.inserting_before(norm.last):
        vector = None if weight is None else channel_vector(weight, norm.x)
        if abs(number - 1) > 1e-6:
            if vector is None:
                channels, where = shape_of(norm.x)[1], value_of(norm.x).device
                vector = graph.call_function(aten.full.default, ([channels], number), {"device": where})
                vector.meta["val"] = value_of(norm.x).new_empty(channels, dtype=torch.float32)
            else:
                vector = _computed(graph, aten.mul.Tensor, vector, number)
    return replace(norm, weight=vector)


def fuse_norms(graph: fx.Graph) -> None:
    """Put `graph_ops.norm_silu` where a norm and what follows it are computed."""
    for node in calls(graph, aten.group_norm.default):
        if (norm := _group_norm(node)) is not None:
            _put(_followed(norm))
    for node in calls(graph, aten.div.Tensor):
        if is_tensor(node.args[1]) and (norm := _rms_norm(node)) is not None:
            _put(_followed(norm))
    for node in calls(graph, norm_silu):
        x, groups, weight, bias, scale, shift, eps, activate = node.args
        whole = _followed(Norm(node, x, groups, weight, bias, eps, scale, shift, activate))
        if whole.last is not node:
            _put(whole)
    graph.eliminate_dead_code()
