"""conv1x1: a matrix of weights times the channels of every pixel, with a norm before and sums after in the same pass.

    v   = [x, x2] * pixel * factor + offset, v <- v * sigmoid(v)             norm, activate
    out = (weight v + bias + add + residual) * gain
    statistics = count, mean, sum of (out - mean)**2 per channel over stretches of 64 neighbouring pixels

[x, x2] is the concatenation over channels, read through two pointers. x (B, C1, ...) is float32 (float64: torch
backend) and has any number of dimensions after the channels, or none: then this is a linear map of rows. out (B, Cout,
...) has its channels last in memory.

The raw op, for callers who have checked and packed everything beforehand, is

    torch.ops.fastdiff.conv1x1_cpp(out, statistics, x, x2, packed, bias, factors, pixel, activate, add, residual, gain)

Maps are float32 and channels last, everything else is contiguous (add: dense rows); out and statistics (B, `stretches`,
3, Cout), or None, are written. packed is ``pack(weight).data``. The op allocates nothing: scratch memory belongs to the
calling thread and grows to the largest call so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from . import dispatch, extension
from .arguments import check_exactly, check_tensor, described
from .convolution_inputs import (
    NormFactors,
    check_data,
    check_fits,
    check_flags,
    check_norm,
    check_sums,
    cpp_reasons,
    normalised,
)
from .feature_maps import dense_floats, plain_rows
from .packed_memory import packed_memory
from .shape_classes import of_maps

__all__ = ["PackedMatrix", "conv1x1", "last", "pack", "stretches"]
_OP = "conv1x1"
_STRETCH = 64  # kConv1x1Stretch of csrc/include/fastdiff/conv1x1.h


class PackedMatrix(NamedTuple):
    """A weight of `conv1x1`, made ready once for many calls.

    Attributes:
        weight: (Cout, Cin), as it was given.
        data: what the C++ kernels read; None where they are not, or where the weight is not theirs.
    """

    weight: Tensor
    data: Tensor | None


def last(x: Tensor) -> Tensor:
    """x (B, C, ...) with its channels last in memory; itself where it is so already."""
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous() if x.dim() == 2 else x.movedim(1, -1).contiguous().movedim(-1, 1)


def stretches(size: Sequence[int]) -> int:
    """Number P of stretches over which the C++ backend takes statistics of an output of this size (B, Cout, ...)."""
    return -(-math.prod(size[2:]) // _STRETCH)


def _moments(x: Tensor) -> Tensor:
    mean = x.mean(2)
    squares = (x - mean.unsqueeze(2)).square().sum(2)
    return torch.stack([torch.full_like(mean, x.shape[2]), mean, squares], dim=1)


def _check_weight(place: str, weight: Any) -> None:
    check_tensor(place, "weight", weight)
    if weight.dim() != 2 or 0 in weight.shape or weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{place}: weight must be float32 (Cout, Cin), got {described(weight)}")


def pack(weight: Tensor) -> PackedMatrix:
    """Make a weight ready for `conv1x1`.

    Args:
        weight: (Cout, Cin) float32.

    Returns:
        The packed weight. It does not follow later changes of the weight.

    Raises:
        TypeError: weight is not a tensor.
        ValueError: weight has another shape or type.
    """
    _check_weight("conv1x1.pack", weight)
    if extension.MISSING or not weight.is_cpu or weight.dtype != torch.float32:
        return PackedMatrix(weight, None)
    data = packed_memory(torch.ops.fastdiff.conv1x1_packed_floats(*weight.shape))
    torch.ops.fastdiff.conv1x1_pack_cpp.default(data, weight.detach())
    return PackedMatrix(weight, data)


def reference(
    *,
    x: Tensor,
    weight: Tensor | PackedMatrix,
    bias: Tensor | None,
    x2: Tensor | None,
    norm: NormFactors | None,
    activate: bool,
    add: Tensor | None,
    residual: Tensor | None,
    gain: float,
    statistics: bool,
    out: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`conv1x1` in plain torch, one pass after the other."""
    plain = weight.weight if isinstance(weight, PackedMatrix) else weight
    v, ones = normalised(x, x2, norm, activate), [1] * (x.dim() - 2)
    y = functional.linear(v.movedim(1, -1), plain, bias).movedim(-1, 1)
    y = y if add is None else y + add.reshape(*add.shape, *ones)
    y = last((y if residual is None else y + residual) * gain)
    y = y if out is None else out.copy_(y)
    if not statistics:
        return y
    parts = y.reshape(*y.shape[:2], math.prod(y.shape[2:])).split(_STRETCH, dim=2)
    return y, torch.stack([_moments(part) for part in parts], dim=1)


def _check(inputs: Mapping[str, Any]) -> None:
    x, x2, weight = inputs["x"], inputs["x2"], inputs["weight"]
    check_tensor(_OP, "x", x)
    if x.dim() < 2 or 0 in x.shape[1:] or x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{_OP}: x must be float32 (B, C, ...) with no empty dimension, got {described(x)}")
    channels = x.shape[1]
    if x2 is not None:
        check_tensor(_OP, "x2", x2)
        wanted = (x.shape[0], x2.shape[1] if x2.dim() > 1 else 1, *x.shape[2:])
        check_exactly(_OP, "x2", x2, x.dtype, wanted, x)
        channels += x2.shape[1]
    weight = weight.weight if isinstance(weight, PackedMatrix) else weight
    _check_weight(_OP, weight)
    check_fits(_OP, weight, x, ("Cout", channels))
    check_flags(_OP, inputs, "activate", "statistics")
    check_norm(_OP, inputs["norm"], x, channels)
    check_sums(_OP, inputs, (x.shape[0], weight.shape[0], *x.shape[2:]))


def _packed(weight: Tensor | PackedMatrix) -> PackedMatrix:
    if not isinstance(weight, PackedMatrix):
        return pack(weight)
    if not torch.compiler.is_compiling():
        floats = torch.ops.fastdiff.conv1x1_packed_floats(*weight.weight.shape)
        check_data(_OP, weight.data, floats)
    return weight


def _cpp(
    *,
    x: Tensor,
    weight: Tensor | PackedMatrix,
    bias: Tensor | None,
    x2: Tensor | None,
    norm: NormFactors | None,
    activate: bool,
    add: Tensor | None,
    residual: Tensor | None,
    gain: float,
    statistics: bool,
    out: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    packed = _packed(weight)
    outs = packed.weight.shape[0]
    y = x.new_empty((x.shape[0], *x.shape[2:], outs)).movedim(-1, 1) if out is None else out
    sums = x.new_empty(x.shape[0], stretches(x.shape), 3, outs) if statistics else None
    factors, pixel = (None, None) if norm is None else (norm.channels.contiguous(), norm.pixel)
    torch.ops.fastdiff.conv1x1_cpp.default(
        y, sums, last(x), None if x2 is None else last(x2), packed.data, dense_floats(bias), factors,
        None if pixel is None else pixel.contiguous(), activate, plain_rows(add),
        residual if residual is out or residual is None else last(residual), gain,
    )  # fmt: skip
    return y if sums is None else (y, sums)


def _shape_class(*, x: Tensor, weight: Tensor | PackedMatrix, **inputs: Any) -> str:
    fused = ("x2", "norm", "activate", "add", "residual", "statistics")
    plain = weight.weight if isinstance(weight, PackedMatrix) else weight
    told = of_maps(x, unpacked=plain is weight, **{name: inputs[name] for name in fused})
    return f"{told} to {plain.shape[0]}"


extension.register_fake("conv1x1_cpp")
extension.register_fake("conv1x1_pack_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("cpp", _cpp, cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def conv1x1(
    x: Tensor,
    weight: Tensor | PackedMatrix,
    bias: Tensor | None = None,
    *,
    x2: Tensor | None = None,
    norm: NormFactors | None = None,
    activate: bool = False,
    add: Tensor | None = None,
    residual: Tensor | None = None,
    gain: float = 1.0,
    statistics: bool = False,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """[normalise -> SiLU ->] multiply every pixel's channels -> (+ bias + add + residual) * gain [-> statistics].

    Args:
        x: (B, C1, ...) float32; channels last is read as it is, other layouts are copied.
        weight: (Cout, C1 + C2) float32, or better `pack` of it, which is done once.
        bias: (Cout,) or None.
        x2: (B, C2, ...), further input channels, or None.
        norm: factors of the normalisation before the product, of all input channels, or None.
        activate: apply SiLU after the normalisation.
        add: (B, Cout) added to every pixel, or None.
        residual: (B, Cout, ...) added to the result, or None.
        gain: factor of the whole sum.
        statistics: return the partial statistics of the output, too.
        out: (B, Cout, ...) channels last, where the result goes; may be the residual itself. None for new memory.

    Returns:
        (B, Cout, ...) channels last; with statistics a pair of it and (B, P, 3, Cout) for `norm_factors`.

    Raises:
        TypeError: x is not a float32 (B, C, ...).
        ValueError: something does not fit x.

    Source: a 1x1 convolution as the product of two matrices; blocks after Goto and van de Geijn 2008.
    """
    inputs = {
        **{"x": x, "weight": weight, "bias": bias, "x2": x2, "norm": norm, "activate": activate},
        **{"add": add, "residual": residual, "gain": gain, "statistics": statistics, "out": out},
    }
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
