"""Normalise: one spelling for each idea, and nothing that does nothing.

The passes run in the order of `normalise`. Each leaves a graph that computes the same values; views may become copies
and copies views, which nobody can tell once `pure.without_writes` has passed the graph.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from . import own_ops, pure
from .graphs import Node, calls, is_call, is_tensor, replace, schema_of, shape_of, value_of

aten = torch.ops.aten

_MAY_DO_NOTHING = {
    *(aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten.type_as.default),
    *(aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default),
    *(aten.lift_fresh_copy.default, aten.lift_fresh.default, aten._to_copy.default, aten.positive.default),
    *(aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default),
}
_DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.flatten.using_ints, aten.unflatten.int)


def fill_defaults(graph: fx.Graph) -> None:
    """Every argument that may stand in place does, with its default where the call left it out."""
    for node in graph.nodes:
        schema = schema_of(node)
        if schema is None:
            continue
        args, kwargs = list(node.args), dict(node.kwargs)
        for argument in [a for a in schema.arguments if not a.kwarg_only][len(args) :]:
            args.append(kwargs.pop(argument.name, argument.default_value))
        node.args, node.kwargs = tuple(args), kwargs


def _is_unchanged(node: Node) -> bool:
    source = node.args[0]
    if not is_tensor(node) or not is_tensor(source):
        return False
    new, old = value_of(node), value_of(source)
    return new.shape == old.shape and new.dtype == old.dtype and new.device == old.device


def _does_nothing(node: Node) -> bool:
    if is_call(node, *_MAY_DO_NOTHING):
        return _is_unchanged(node)
    if is_call(node, *_DROPOUTS):
        return not node.args[2] or node.args[1] == 0.0
    if is_call(node, aten.mul.Tensor) and is_call(node.args[1], aten.ones.default):
        return _is_unchanged(node)
    if is_call(node, aten.div.Tensor, aten.mul.Tensor, aten.div.Scalar, aten.mul.Scalar):
        return not isinstance(node.args[1], fx.Node) and node.args[1] == 1 and _is_unchanged(node)
    if is_call(node, aten.permute.default):
        return list(node.args[1]) == list(range(len(shape_of(node))))
    return False


def drop_no_ops(graph: fx.Graph) -> None:
    """Erase what returns its input: dropout outside train mode, casts to the same dtype, factors of 1, ..."""
    for node in list(graph.nodes):
        if node.op == "call_function" and _does_nothing(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def plain_views(graph: fx.Graph) -> None:
    """All changes of shape are `reshape`, all orders of dimensions one `permute`."""
    for node in list(graph.nodes):
        if is_call(node, *_VIEWS):
            replace(node, aten.reshape.default, (node.args[0], list(shape_of(node))))
        elif is_call(node, aten.reshape.default):
            node.args = (node.args[0], list(shape_of(node)))
        elif is_call(node, aten.transpose.int, aten.t.default, aten.permute.default):
            _plain_permute(node)


def _plain_permute(node: Node) -> None:
    source, rank = node.args[0], len(shape_of(node))
    order = list(range(rank))
    if is_call(node, aten.permute.default):
        order = [d % rank for d in node.args[1]]
    elif rank >= 2:
        first, second = (
            (0, 1) if is_call(node, aten.t.default) else (node.args[1] % rank, node.args[2] % rank)
        )
        order[first], order[second] = order[second], order[first]
    if is_call(source, aten.permute.default):
        order = [source.args[1][d] for d in order]
        source = source.args[0]
    replace(node, aten.permute.default, (source, order))


def plain_parts(graph: fx.Graph) -> None:
    """chunk, split and unbind become slices and selections."""
    splits = (
        aten.chunk.default,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.tensor_split.sections,
    )
    for node in calls(graph, *splits, aten.unbind.int):
        if any(not is_call(user, operator.getitem) for user in node.users):
            continue
        source, selects = node.args[0], is_call(node, aten.unbind.int)
        dim = (node.args[1] if selects else node.args[2]) % len(shape_of(source))
        sizes = [1 if selects else part.shape[dim] for part in value_of(node)]
        for user in list(node.users):
            part = user.args[1] % len(sizes)
            start = sum(sizes[:part])
            if selects:
                replace(user, aten.select.int, (source, dim, part))
            else:
                replace(user, aten.slice.Tensor, (source, dim, start, start + sizes[part], 1))
        graph.erase_node(node)


def plain_silu(graph: fx.Graph) -> None:
    """x * sigmoid(x), in either order, is silu(x); of integers torch has no silu."""
    for node in calls(graph, aten.mul.Tensor):
        a, b = node.args
        if not all(is_tensor(part) and value_of(part).is_floating_point() for part in (a, b)):
            continue
        if is_call(b, aten.sigmoid.default) and b.args[0] is a:
            replace(node, aten.silu.default, (a,))
        elif is_call(a, aten.sigmoid.default) and a.args[0] is b:
            replace(node, aten.silu.default, (b,))


def _key(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in sorted(value.items()))
    return value if isinstance(value, fx.Node) else exactly(value)


def exactly(value: Any) -> tuple[type, Any]:
    """A key that tells apart what Python takes for equal: 1, 1.0 and True; 0.0 and -0.0. NaN equals itself in it."""
    return type(value), repr(value) if isinstance(value, (float, complex)) else value


def share_equals(graph: fx.Graph) -> None:
    """Two calls of the same operation on the same arguments become one."""
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            continue
        try:
            first = seen.setdefault((node.target, _key(node.args), _key(node.kwargs)), node)
        except TypeError:  # an argument that cannot be hashed
            continue
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def normalise(graph: fx.Graph) -> None:
    """Bring a traced graph to the one spelling that the matchers know.

    Raises:
        Unsupported: for a graph that writes to its inputs or draws random numbers.
    """
    fill_defaults(graph)
    own_ops.recognise(graph)
    pure.without_writes(graph)
    plain_parts(graph)
    plain_views(graph)
    drop_no_ops(graph)
    plain_views(graph)  # permutations that a dropped no-op had kept apart
    drop_no_ops(graph)
    plain_silu(graph)
    share_equals(graph)
    graph.eliminate_dead_code()
