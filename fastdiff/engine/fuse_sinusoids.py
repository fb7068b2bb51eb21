"""Sines and cosines of a time embedding, `cat([sin(t f), cos(t f)])` in either order, become one `sinusoids`.

Seven steps of torch for a few hundred numbers take 0.2 ms between the kernels of a large network (docs/lab/engine.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from fastdiff.ops import extension

from .graphs import Node, calls, erase_dead, is_call, only_user, replace, shape_of, value_of

aten = torch.ops.aten


def sinusoids(times: Tensor, frequencies: Tensor, cosines_first: bool, out: Tensor | None = None) -> Tensor:
    """Sines and cosines of times at frequencies, computed in float32 (Vaswani et al. 2017).

    Args:
        times: (B,), any real type.
        frequencies: (H,) float32, in radians per unit of time.
        cosines_first: the order of the two halves.
        out: where the result goes.

    Returns:
        (B, 2 H) float32.
    """
    out = torch.empty((len(times), 2 * len(frequencies))) if out is None else out
    torch.ops.fastdiff.sinusoids_cpp.default(
        out, times.float().contiguous(), frequencies.contiguous(), cosines_first
    )
    return out


def reference(times: Tensor, frequencies: Tensor, cosines_first: bool) -> Tensor:
    """`sinusoids` in plain torch."""
    angles = times.float()[:, None] * frequencies
    halves = (angles.cos(), angles.sin()) if cosines_first else (angles.sin(), angles.cos())
    return torch.cat(halves, dim=1)


def fuse_sinusoids(graph: fx.Graph) -> None:
    """Find them, and concatenations that change their halves afterwards."""
    if extension.MISSING:
        return
    for node in calls(graph, aten.cat.default):
        if len(node.args[0]) != 2 or len(shape_of(node)) != 2 or node.args[1] not in (1, -1):
            continue
        made = _made(*node.args[0]) or _exchanged(*node.args[0])
        if made is not None:
            parts = list(node.args[0])
            replace(node, sinusoids, made)
            for part in parts:
                erase_dead(part)


def _made(first: Node, second: Node) -> tuple[Node, Node, bool] | None:
    """What `sinusoids` is to be called with for a sine and a cosine of the same product."""
    cosines_first = is_call(first, aten.cos.default)
    sine, cosine = (second, first) if cosines_first else (first, second)
    if not is_call(sine, aten.sin.default) or not is_call(cosine, aten.cos.default):
        return None
    product = sine.args[0]
    if cosine.args[0] is not product or not is_call(product, aten.mul.Tensor):
        return None
    for times, frequencies in (product.args, product.args[::-1]):
        found = _times(times), _frequencies(frequencies)
        if found[0] is not None and found[1] is not None and value_of(product).dtype == torch.float32:
            return *found, cosines_first
    return None


def _times(column: Node) -> Node | None:
    """Times (B,) behind a column of them, which may be made float32 before or after it."""
    wide = False
    while is_call(column, aten.unsqueeze.default, aten.to.dtype):
        if (
            is_call(column, aten.unsqueeze.default)
            and len(shape_of(column)) == 2
            and shape_of(column)[1] == 1
        ):
            column = column.args[0]
        elif is_call(column, aten.to.dtype) and column.args[1] == torch.float32 and not wide:
            column, wide = column.args[0], True
        else:
            break
    fits = isinstance(column, fx.Node) and len(shape_of(column)) == 1 and not value_of(column).is_complex()
    return column if fits else None


def _frequencies(row: Node) -> Node | None:
    """Frequencies (H,) behind a row of them."""
    if is_call(row, aten.unsqueeze.default) and shape_of(row)[:1] == (1,):
        row = row.args[0]
    fits = isinstance(row, fx.Node) and len(shape_of(row)) == 1 and value_of(row).dtype == torch.float32
    return row if fits else None


def _exchanged(first: Node, second: Node) -> tuple[Node, Node, bool] | None:
    """The call whose second half `first` is, and whose first half `second`, with its halves exchanged."""
    if not all(is_call(part, aten.slice.Tensor) and only_user(part) is not None for part in (first, second)):
        return None
    whole = first.args[0]
    if second.args[0] is not whole or not is_call(whole, sinusoids):
        return None
    width = shape_of(whole)[1]
    halves = [_columns(part, width) for part in (first, second)]
    if halves != [(width // 2, width), (0, width // 2)]:
        return None
    times, frequencies, cosines_first = whole.args
    return times, frequencies, not cosines_first


def _columns(part: Node, width: int) -> tuple[int, int] | None:
    _, dim, start, end, step = part.args
    return slice(start, end).indices(width)[:2] if dim in (1, -1) and step == 1 else None
