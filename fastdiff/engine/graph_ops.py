"""The operations that the engine puts into a graph, each a function of tensors with a plain meaning.

A graph with these calls can be run at any stage of the pipeline; the tests do. Those that a tape (tape.py) can hold
take `out`, memory in the form of their result.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastdiff import ops
from fastdiff.ops import dispatch, group_norm_silu, rms_norm_silu
from fastdiff.ops.attention_inputs import output_like
from fastdiff.ops.channel_statistics import stretches as stretches_of_map
from fastdiff.ops.conv1x1 import last
from fastdiff.ops.conv1x1 import pack as pack_matrix
from fastdiff.ops.conv1x1 import stretches as stretches_of_pixels
from fastdiff.ops.conv3x3_weights import TILE, pack, stretches
from fastdiff.ops.feature_maps import dense_floats, plain_rows

_LAST = torch.channels_last
#: Rows from which on oneDNN's packed product beats torch's own (docs/lab/engine.md); never where torch has no oneDNN.
PACKED_ROWS = 256 if torch.backends.mkldnn.is_available() else sys.maxsize
#: Whether the C++ backend convolves.
CONVOLVES = any(b.name == "cpp" and not b.missing for b in dispatch.registered()["conv3x3"])

#: Whether the C++ backend has attention, and linear attention.
ATTENDS = any(b.name == "cpp" and not b.missing for b in dispatch.registered()["attention"])
ATTENDS_LINEARLY = any(b.name == "cpp" and not b.missing for b in dispatch.registered()["linear_attention"])


def channels_last(x: Tensor) -> Tensor:
    """x (B, C, H, W) with its channels last in memory."""
    return x.contiguous(memory_format=_LAST)


def norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> Tensor:
    """Group norm, or RMS norm over channels where groups is 0, then * (1 + scale) + shift, then SiLU.

    Args:
        x: (B, C, ...).
        groups: of the group norm; 0 for x / max(|x|, eps) * sqrt(C) * weight.
        weight: (C,) or None.
        bias: (C,) or None.
        scale: (B, C) or None.
        shift: (B, C) or None.
        eps: added to the variance, or the least norm.
        activate: apply SiLU.

    Returns:
        (B, C, ...).
    """
    if groups:
        return group_norm_silu(x, groups, weight, bias, scale=scale, shift=shift, eps=eps, activate=activate)
    return rms_norm_silu(x, weight, scale=scale, shift=shift, eps=eps, activate=activate)


def norm_silu_of_sum(
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
    add: Tensor | None,
    residual: Tensor | None,
    residual_add: Tensor | None,
    x2: Tensor | None,
    after: bool,
    last: bool,
    with_sum: bool = False,
) -> Any:
    """`norm_silu` with the sums around it, see `fastdiff.ops.norm_sums`; with `with_sum` a pair of result and sum."""
    around: dict[str, Any] = {"add": add, "residual": residual, "residual_add": residual_add, "x2": x2}
    around |= {"scale": scale, "shift": shift, "eps": eps, "activate": activate}
    around |= {"after": after, "last": last, "with_sum": with_sum}
    if groups:
        return group_norm_silu(x, groups, weight, bias, **around)
    return rms_norm_silu(x, weight, **around)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """`fastdiff.ops.attention` of q (..., N, D), k (..., M, D) and v (..., M, E): (..., N, E); float32 in C++."""
    if out is None:
        if not ATTENDS or q.dtype != torch.float32:
            return ops.attention(q, k, v, scale=scale)
        out = output_like(q, v)
    torch.ops.fastdiff.attention_cpp.default(out, None, q, k, v, scale)
    return out


def pack_conv3x3(weight: Tensor, algorithm: str) -> Tensor | None:
    """A weight (Cout, Cin, 3, 3) in the form that `conv3x3` reads."""
    return pack(weight, algorithm).data


def conv3x3(
    x: Tensor,
    x2: Tensor | None,
    packed: Tensor,
    algorithm: str,
    bias: Tensor | None,
    factors: Tensor | None,
    pixel: Tensor | None,
    activate: bool,
    upsample: bool,
    add: Tensor | None,
    residual: Tensor | None,
    gain: float,
    size: Sequence[int],
    stride: int = 1,
    before: int = 1,
    statistics: bool = False,
    out: Any = None,
) -> Any:
    """`fastdiff.ops.conv3x3` without its checks.

    Args:
        x: (B, C1, H, W).
        x2: (B, C2, H, W) or None.
        packed: by `pack_conv3x3`.
        algorithm: that it is packed for.
        bias: (Cout,) or None.
        factors: (B, 2, C1 + C2), see `group_factors`, or None.
        pixel: (B, H, W), see `pixel_factors`, or None.
        activate: SiLU before the convolution.
        upsample: double the size before it.
        add: (B, Cout) or None.
        residual: (B, Cout, H', W') or None.
        gain: factor of the sum.
        size: of the result.
        stride: 1 or 2.
        before: zeros before the first row and column.
        statistics: a pair of the result and its partial statistics is wanted.
        out: where the result goes, or a pair as the result.

    Returns:
        (B, Cout, H', W') channels last, or that and (B, P, 3, Cout).
    """
    x, x2 = channels_last(x), None if x2 is None else channels_last(x2)
    residual = None if residual is None else channels_last(residual)
    sums = None
    if out is not None:
        out, sums = out if statistics else (out, None)
    else:
        out = torch.empty(size, memory_format=_LAST)
        if statistics:
            sums = torch.empty((size[0], stretches(algorithm, *size[2:]), 3, size[1]))
    torch.ops.fastdiff.conv3x3_cpp.default(
        out,
        sums,
        x,
        x2,
        packed,
        TILE[algorithm],
        dense_floats(bias),
        factors,
        pixel,
        activate,
        upsample,
        plain_rows(add),
        residual,
        gain,
        stride,
        before,
    )
    return (out, sums) if statistics else out


def pack_conv1x1(weight: Tensor) -> Tensor | None:
    """A weight (Cout, Cin) in the form that `conv1x1` reads."""
    return pack_matrix(weight).data


def conv1x1(
    x: Tensor,
    x2: Tensor | None,
    packed: Tensor,
    bias: Tensor | None,
    factors: Tensor | None,
    pixel: Tensor | None,
    activate: bool,
    residual: Tensor | None,
    size: Sequence[int],
    statistics: bool = False,
    out: Any = None,
) -> Any:
    """`fastdiff.ops.conv1x1` without its checks.

    Args:
        x: (B, C1, ...).
        x2: (B, C2, ...) or None.
        packed: by `pack_conv1x1`.
        bias: (Cout,) or None.
        factors: (B, 2, C1 + C2), see `group_factors`, or None.
        pixel: (B, ...), see `pixel_factors`, or None.
        activate: SiLU before the product.
        residual: (B, Cout, ...) or None.
        size: of the result.
        statistics: a pair of the result and its partial statistics is wanted.
        out: where the result goes, or a pair as the result.

    Returns:
        (B, Cout, ...) channels last, or that and (B, P, 3, Cout).
    """
    x, x2 = last(x), None if x2 is None else last(x2)
    residual = None if residual is None else last(residual)
    sums = None
    if out is not None:
        out, sums = out if statistics else (out, None)
    else:
        out = torch.empty((size[0], *size[2:], size[1])).movedim(-1, 1)
        sums = torch.empty((size[0], stretches_of_pixels(size), 3, size[1])) if statistics else None
    torch.ops.fastdiff.conv1x1_cpp.default(
        out, sums, x, x2, packed, bias, factors, pixel, activate, None, residual, 1.0
    )
    return (out, sums) if statistics else out


def statistics_of(x: Tensor, out: Tensor | None = None) -> Tensor:
    """Partial statistics (B, P, 3, C) of a map (B, C, H, W) that no fused convolution made."""
    batch, channels, height, width = x.shape
    if out is None:
        out = torch.empty((batch, stretches_of_map(channels, height * width), 3, channels))
    torch.ops.fastdiff.channel_statistics_cpp.default(out, channels_last(x))
    return out


def group_factors(
    first: Tensor,
    second: Tensor | None,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    channels: int,
    out: Tensor | None = None,
) -> Tensor:
    """Factors (B, 2, C) of a group norm from the partial statistics of one or two maps with C channels in all."""
    out = first.new_empty((first.shape[0], 2, channels)) if out is None else out
    torch.ops.fastdiff.norm_factors_cpp.default(
        out, first, second, groups, weight, bias, plain_rows(scale), plain_rows(shift), eps
    )
    return out


def channel_factors(
    batch: int,
    channels: int,
    weight: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """Factors (B, 2, C) of what follows an RMS norm: weight * (1 + scale) and shift."""
    out = torch.empty((batch, 2, channels)) if out is None else out
    torch.ops.fastdiff.affine_factors_cpp.default(
        out, dense_floats(weight), plain_rows(scale), plain_rows(shift)
    )
    return out


def pixel_factors(x: Tensor, x2: Tensor | None, eps: float, out: Tensor | None = None) -> Tensor:
    """Factors (B, H, W) of an RMS norm over the channels of one or two maps."""
    out = torch.empty((x.shape[0], *x.shape[2:])) if out is None else out
    x2 = None if x2 is None else channels_last(x2)
    torch.ops.fastdiff.pixel_norms_cpp.default(out, channels_last(x), x2, eps)
    return out


def pack_conv(
    weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int, size: list[int]
) -> Tensor:
    """A convolution's weight in the order that oneDNN likes for inputs of this size."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, size)


def packed_conv(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """A convolution with a weight from `pack_conv`; the result's channels are last."""
    return torch.ops.mkldnn._convolution_pointwise.default(
        channels_last(x), packed, bias, padding, stride, dilation, groups, "none", [], ""
    )


def pack_linear(weight: Tensor, rows: int) -> Tensor:
    """A weight (N, K) for products with this many rows."""
    if rows < PACKED_ROWS:
        return weight.t().contiguous()
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None, rows: int, width: int) -> Tensor:
    """x (..., K) times a weight (N, K) from `pack_linear` for this many rows, plus bias (N,)."""
    if rows >= PACKED_ROWS:
        return torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
    flat = x.reshape(rows, -1)
    product = torch.mm(flat, packed) if bias is None else torch.addmm(bias, flat, packed)
    return product.view(*x.shape[:-1], width)


def packed_linear_add(
    x: Tensor, packed: Tensor, bias: Tensor | None, residual: Tensor, rows: int, width: int
) -> Tensor:
    """`packed_linear` plus a tensor of the result's shape."""
    if rows >= PACKED_ROWS:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, packed, bias, "add")
    return packed_linear(x, packed, bias, rows, width).add_(residual)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory_k: Tensor | None,
    memory_v: Tensor | None,
    scale: float,
    out: Tensor | None = None,
) -> Tensor:
    """`fastdiff.ops.linear_attention` without its checks; rows of memory stand before those of k and v, not joined.

    Args:
        q: (B, heads, N, D).
        k: (B, heads, M, D).
        v: (B, heads, M, E).
        memory_k: (B, heads, L, D) or None.
        memory_v: (B, heads, L, E) or None.
        scale: of the result.
        out: where it goes.

    Returns:
        (B, heads, N, E), in memory as (B, N, heads, E) where q lies so, which is what the product that follows reads.
    """
    out = output_like(q, v) if out is None else out
    torch.ops.fastdiff.linear_attention_cpp.default(out, q, k, v, scale, memory_k, memory_v)
    return out


def joined(weights: list[Tensor]) -> Tensor:
    """Weights or biases of linear maps of one input, as those of one."""
    return torch.cat(weights)


def fresh(x: Tensor, size: list[int], stride: list[int]) -> Tensor:
    """A copy of x in memory of its own, with these strides."""
    return torch.empty_strided(size, stride, dtype=x.dtype, device=x.device).copy_(x)
