"""3x3 convolutions with the norm before them and the sums after them: `graph_ops.conv3x3`.

The norm needs statistics of its input; where that is the output of another such convolution, they are taken there in
the same pass. A concatenation is read through two pointers, a doubling of pixels by halved indices: neither is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from fastdiff.ops.conv3x3 import choose

from . import graph_ops
from .fold import weight_only
from .fuse_norms import channel_rows, channel_vector, is_float_map, per_channel
from .graphs import Node, calls, erase_dead, is_call, is_tensor, only_user, shape_of, value_of
from .map_sums import current, factors_of
from .settings import Settings

aten = torch.ops.aten
_FEW_CHANNELS = 16  # fewer are left to oneDNN where the stride is 2
_UPSAMPLES = (aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default)


@dataclass
class _Conv:
    """A convolution in the making."""

    last: Node
    x: Node
    weight: Node
    bias: Node | None
    algorithm: str
    x2: Node | None = None
    norm: Node | None = None
    activate: bool = False
    upsample: bool = False
    add: Node | None = None
    residual: Node | None = None
    gain: float = 1.0
    stride: int = 1
    before: int = 1


@dataclass
class _Fuser:
    graph: fx.Graph
    settings: Settings
    static: set[Node]

    def algorithm(self, node: Node) -> str | None:
        """How `graph_ops.conv3x3` computes a convolution; None leaves it alone."""
        x, weight, bias, stride, padding, dilation, groups = node.args
        if not graph_ops.CONVOLVES or not self.settings.winograd:
            return None
        usual = [list(dilation), groups] == [[1, 1], 1]
        strided = _strided(x, list(stride), list(padding)) is not None
        plain = usual and (strided or [list(stride), list(padding)] == [[1, 1], [1, 1]])
        if not plain or not is_float_map(x) or len(shape_of(x)) != 4:
            return None
        size = shape_of(weight)
        if size[2:] != (3, 3) or weight not in self.static or value_of(weight).dtype != torch.float32:
            return None
        if bias is not None and bias not in self.static:
            return None
        if strided:
            return "direct" if min(size[:2]) >= _FEW_CHANNELS else None
        batch, _, height, width = shape_of(node)
        return choose(batch, size[1], size[0], height, width, torch.get_num_threads(), self.settings.memory)

    def put(self, conv: _Conv) -> None:
        """Insert the fused call in the place of the last node that it stands for."""
        rows, pixel = factors_of(self.graph, conv.norm, conv.x, conv.x2, conv.last)
        with self.graph.inserting_before(conv.last):
            packed = self.graph.call_function(graph_ops.pack_conv3x3, (conv.weight, conv.algorithm))
            arguments = (
                *(current(conv.x), current(conv.x2), packed, conv.algorithm, conv.bias),
                *(rows, pixel, conv.activate, conv.upsample, conv.add, current(conv.residual)),
                *(conv.gain, list(shape_of(conv.last)), conv.stride, conv.before),
            )
            node = self.graph.call_function(graph_ops.conv3x3, arguments)
        node.meta = dict(conv.last.meta)
        conv.last.replace_all_uses_with(node)
        erase_dead(conv.last)


def _strided(x: Node, stride: list[int], padding: list[int]) -> tuple[Node, int] | None:
    """(input, zeros before its first row and column) of a convolution of stride 2; DDPM's has zeros behind alone."""
    if stride == [2, 2] and padding == [1, 1]:
        return x, 1
    if (
        stride != [2, 2]
        or padding != [0, 0]
        or not is_call(x, aten.pad.default, aten.constant_pad_nd.default)
    ):
        return None
    kind, value = ("constant", x.args[2]) if is_call(x, aten.constant_pad_nd.default) else x.args[2:4]
    plain = list(x.args[1]) == [0, 1, 0, 1] and kind == "constant" and not value
    return (x.args[0], 0) if plain and min(shape_of(x)[2:]) > 2 else None


def parts_of(x: Node) -> tuple[Node, Node | None]:
    """The two maps that a concatenation of channels joins."""
    if is_call(x, aten.cat.default) and len(x.args[0]) == 2 and x.args[1] in (1, 1 - len(shape_of(x))):
        first, second = x.args[0]
        if all(is_float_map(part) and len(shape_of(part)) == 4 for part in (first, second)):
            return first, second
    return x, None


def _with_prologue(conv: _Conv) -> None:
    x = conv.x
    doubled = is_call(x, *_UPSAMPLES) and only_user(x) is not None and is_float_map(x.args[0])
    if (
        doubled
        and conv.stride == 1
        and [2 * size for size in shape_of(x.args[0])[2:]] == list(shape_of(x)[2:])
    ):
        conv.upsample, x = True, x.args[0]
    if only_user(x) is not None and is_call(x, graph_ops.norm_silu) and len(shape_of(x.args[0])) == 4:
        conv.norm, conv.activate, x = x, x.args[-1], x.args[0]
    elif only_user(x) is not None and is_call(x, aten.silu.default):
        conv.activate, x = True, x.args[0]
    conv.x, conv.x2 = parts_of(x)


def _absorb(conv: _Conv, user: Node) -> bool:
    """Take a sum or a factor that follows into the convolution."""
    graph = user.graph
    if is_call(user, aten.mul.Tensor, aten.div.Tensor) and isinstance(user.args[1], (int, float)):
        if user.args[0] is not conv.last or user.args[1] == 0:
            return False
        conv.gain *= user.args[1] if is_call(user, aten.mul.Tensor) else 1.0 / user.args[1]
        return True
    if not is_call(user, aten.add.Tensor) or user.kwargs.get("alpha", 1) != 1 or conv.gain != 1.0:
        return False
    other = user.args[1] if user.args[0] is conv.last else user.args[0]
    if (
        not is_tensor(other)
        or value_of(other).dtype != torch.float32
        or shape_of(user) != shape_of(conv.last)
    ):
        return False
    if per_channel(other, conv.last):
        with graph.inserting_before(user):
            if shape_of(other)[0] == 1 and conv.bias is None and other.op != "call_function":
                conv.bias = channel_vector(other, conv.last)
            elif conv.add is None:
                conv.add = channel_rows(other, conv.last)
            else:
                return False
        return True
    if conv.residual is None and shape_of(other) == shape_of(conv.last) and other is not conv.last:
        conv.residual = other
        return True
    return False


def _with_epilogue(conv: _Conv) -> None:
    while (user := only_user(conv.last)) is not None and _absorb(conv, user):
        conv.last = user


def fuse_convs(graph: fx.Graph, weights: Sequence[Node], settings: Settings) -> None:
    """Put `graph_ops.conv3x3` where Winograd's form pays, with what surrounds it."""
    fuser = _Fuser(graph, settings, weight_only(graph, weights))
    for node in calls(graph, aten.conv2d.default):
        algorithm = fuser.algorithm(node)
        if algorithm is None:
            continue
        conv = _Conv(node, node.args[0], node.args[1], node.args[2], algorithm)
        if (strided := _strided(conv.x, list(node.args[3]), list(node.args[4]))) is not None:
            conv.stride, (conv.x, conv.before) = 2, strided
        _with_prologue(conv)
        _with_epilogue(conv)
        fuser.put(conv)
    graph.eliminate_dead_code()
