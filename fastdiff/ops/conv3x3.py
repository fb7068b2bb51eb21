"""conv3x3: a 3x3 convolution with the normalisation before it and the sums after it in the same pass.

    v   = [x, x2] * pixel * factor + offset, v <- v * sigmoid(v)             norm, activate
    v   = v with every pixel doubled in both directions                      upsample
    out = (conv(v, weight; stride, zeros around) + bias + add + residual) * gain
    statistics = count, mean, sum of (out - mean)**2 per channel over stretches of pixels

[x, x2] is the concatenation over channels, read through two pointers. The padding is zero after normalisation and
activation. x (B, C1, H, W) is float32 (float64: torch backend); out (B, Cout, H', W') is channels last.

Algorithms: "f43" and "f23" are Winograd's minimal filters F(4x4, 3x3), with the points 0, 1, -1, 1/2, -2, and
F(2x2, 3x3), "direct" is the sum as it stands. An output of Winograd's form errs at most four times what the direct sum
errs (root mean square) and 1e-4 of the largest value. "f43-lean" is F(4x4, 3x3) with weights transformed in every call.
On plain torch every algorithm is the direct sum.

The raw op, for callers who have checked and packed everything beforehand, is

    torch.ops.fastdiff.conv3x3_cpp(out, statistics, x, x2, packed, tile, bias, factors, pixel, activate, upsample, add,
                                   residual, gain, stride=1, before=1)

Maps are float32 and channels last, everything else is contiguous (add: dense rows); out (B, Cout, H', W') and
statistics (B, `stretches`, 3, Cout), or None, are written. packed is ``pack(weight, algorithm).data``, tile is 4 for
"f43" and "f43-lean", 2 for "f23" and 1 for "direct". The op allocates nothing: scratch memory belongs to the calling
thread and grows to the largest call so far. `torch.ops.fastdiff.conv3x3_pack_cpp(packed, weight, tile)` packs again in
place; a weight packed for tile 1 serves every tile ("f43-lean" is 4 with such a weight).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import dispatch, extension
from .channel_statistics import check_float_map
from .channel_statistics import reference as statistics_of
from .conv3x3_weights import (
    TILE,
    PackedWeight,
    check_algorithm,
    check_packed,
    check_weight,
    choose,
    pack,
    stretches,
)
from .convolution_inputs import (
    NormFactors,
    check_fits,
    check_flags,
    check_norm,
    check_sums,
    cpp_reasons,
    normalised,
)
from .feature_maps import dense_floats, plain_rows
from .pixel_norms import check_second_map
from .shape_classes import of_maps

__all__ = ["NormFactors", "PackedWeight", "choose", "conv3x3", "pack", "stretches"]
_OP = "conv3x3"


def reference(
    *,
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None,
    x2: Tensor | None,
    norm: NormFactors | None,
    activate: bool,
    upsample: bool,
    add: Tensor | None,
    residual: Tensor | None,
    gain: float,
    statistics: bool,
    algorithm: str,
    stride: int,
    before: int,
    out: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`conv3x3` in plain torch, one pass after the other."""
    plain = weight.weight if isinstance(weight, PackedWeight) else weight
    v = normalised(x, x2, norm, activate)
    if upsample:
        v = functional.interpolate(v, scale_factor=2.0, mode="nearest")
    v = functional.pad(v, (before, 1, before, 1)).contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(v, plain, bias, stride=stride)
    y = y if add is None else y + add[:, :, None, None]
    y = y if residual is None else y + residual
    y = (y if gain == 1.0 else y * gain).contiguous(memory_format=torch.channels_last)
    y = y if out is None else out.copy_(y)
    return (y, statistics_of(x=y)) if statistics else y


def _check(inputs: Mapping[str, Any]) -> None:
    x, x2, weight, algorithm = inputs["x"], inputs["x2"], inputs["weight"], inputs["algorithm"]
    check_float_map(_OP, "x", x)
    check_second_map(_OP, x, x2)
    check_algorithm(_OP, algorithm, "auto")
    check_flags(_OP, inputs, "activate", "upsample", "statistics")
    if isinstance(weight, PackedWeight):
        if algorithm not in ("auto", weight.algorithm):
            raise ValueError(
                f"{_OP}: algorithm must be 'auto' or that of the packed weight, {weight.algorithm!r}, got {algorithm!r}"
            )
        weight = weight.weight
    check_weight(_OP, weight)
    channels = x.shape[1] + (0 if x2 is None else x2.shape[1])
    check_fits(_OP, weight, x, ("Cout", channels, 3, 3))
    _check_stride(inputs)
    check_norm(_OP, inputs["norm"], x, channels)
    more = (inputs["upsample"], inputs["stride"], inputs["before"])
    check_sums(_OP, inputs, output_shape(x, weight.shape[0], *more))


def output_shape(
    x: Tensor, out_channels: int, upsample: bool, stride: int = 1, before: int = 1
) -> tuple[int, int, int, int]:
    """(B, Cout, H', W')."""
    batch, _, height, width = x.shape
    if stride == 2:
        return batch, out_channels, (height + before) // 2, (width + before) // 2
    scale = 2 if upsample else 1
    return batch, out_channels, height * scale, width * scale


def _check_stride(inputs: Mapping[str, Any]) -> None:
    x, stride, before = inputs["x"], inputs["stride"], inputs["before"]
    if (stride, before) not in ((1, 1), (2, 0), (2, 1)):
        raise ValueError(
            f"{_OP}: stride and before must be 1 and 1, 2 and 0, or 2 and 1, got {stride} and {before}"
        )
    weight, algorithm = inputs["weight"], inputs["algorithm"]
    if isinstance(weight, PackedWeight):
        algorithm = weight.algorithm
    if stride == 2 and (inputs["upsample"] or algorithm not in ("auto", "direct")):
        raise ValueError(f"{_OP}: stride must be 1 for algorithm {algorithm!r} and for upsample, got 2")
    if min(x.shape[2:]) + before < stride:
        raise ValueError(f"{_OP}: x must have at least 2 rows and columns, got {tuple(x.shape)}")


def _last(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


def _packed(weight: Tensor | PackedWeight, algorithm: str, shape: tuple[int, int, int, int]) -> PackedWeight:
    if isinstance(weight, PackedWeight):
        if not torch.compiler.is_compiling():
            check_packed(_OP, weight)
        return weight
    if algorithm == "auto":
        algorithm = choose(shape[0], weight.shape[1], shape[1], shape[2], shape[3])
    return pack(weight, algorithm)


def _cpp(
    *,
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None,
    x2: Tensor | None,
    norm: NormFactors | None,
    activate: bool,
    upsample: bool,
    add: Tensor | None,
    residual: Tensor | None,
    gain: float,
    statistics: bool,
    algorithm: str,
    stride: int,
    before: int,
    out: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    outs = (weight.weight if isinstance(weight, PackedWeight) else weight).shape[0]
    shape = output_shape(x, outs, upsample, stride, before)
    packed = _packed(weight, "direct" if stride == 2 else algorithm, shape)
    y = torch.empty(shape, memory_format=torch.channels_last) if out is None else out
    sums = None
    if statistics:
        sums = torch.empty(shape[0], stretches(packed.algorithm, *shape[2:]), 3, outs)
    factors, pixel = (None, None) if norm is None else (norm.channels.contiguous(), norm.pixel)
    torch.ops.fastdiff.conv3x3_cpp.default(
        y, sums, _last(x), _last(x2), packed.data, TILE[packed.algorithm], dense_floats(bias), factors,
        None if pixel is None else pixel.contiguous(), activate, upsample, plain_rows(add),
        residual if residual is out else _last(residual), gain, stride, before,
    )  # fmt: skip
    return y if sums is None else (y, sums)


def _shape_class(*, x: Tensor, weight: Tensor | PackedWeight, stride: int, **inputs: Any) -> str:
    fused = ("x2", "norm", "activate", "upsample", "add", "residual", "statistics")
    plain = weight.weight if isinstance(weight, PackedWeight) else weight
    told = of_maps(x, unpacked=plain is weight, **{name: inputs[name] for name in fused})
    return f"{told} to {plain.shape[0]}, stride {stride}"


extension.register_fake("conv3x3_cpp")
extension.register_fake("conv3x3_pack_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("cpp", _cpp, cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def conv3x3(
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None = None,
    *,
    x2: Tensor | None = None,
    norm: NormFactors | None = None,
    activate: bool = False,
    upsample: bool = False,
    add: Tensor | None = None,
    residual: Tensor | None = None,
    gain: float = 1.0,
    statistics: bool = False,
    algorithm: str = "auto",
    stride: int = 1,
    before: int = 1,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """[normalise -> SiLU -> upsample ->] convolve -> (+ bias + add + residual) * gain [-> statistics].

    Args:
        x: (B, C1, H, W) float32; channels last is read as it is, other layouts are copied.
        weight: (Cout, C1 + C2, 3, 3) float32, or better `pack` of it, which is done once.
        bias: (Cout,) or None.
        x2: (B, C2, H, W), further input channels, or None.
        norm: factors of the normalisation before the convolution, of all input channels, or None.
        activate: apply SiLU after the normalisation.
        upsample: double the size first, by repeating pixels.
        add: (B, Cout) added to every pixel, such as a time embedding, or None.
        residual: (B, Cout, H', W') added to the result, or None.
        gain: factor of the whole sum.
        statistics: return the partial statistics of the output, too.
        algorithm: "auto" (that of a packed weight, else what `choose` says), "f43", "f43-lean", "f23" or "direct".
        stride: 1, or 2 for every second pixel of every second row, which takes the direct sum.
        before: zeros before the first row and column; with stride 2 it may be 0. Behind the last ones there is one.
        out: (B, Cout, H', W') channels last, where the result goes; may be the residual itself. None for new memory.

    Returns:
        (B, Cout, H', W') channels last; with statistics a pair of it and (B, P, 3, Cout) for `norm_factors`.

    Raises:
        TypeError: x or x2 is not a float32 (B, C, H, W).
        ValueError: something does not fit x, or the algorithm is not known.

    Source: Winograd 1980; Lavin and Gray 2016; points after Barabasz et al. 2018.
    """
    inputs = {
        **{"x": x, "weight": weight, "bias": bias, "x2": x2, "norm": norm, "activate": activate},
        **{"upsample": upsample, "add": add, "residual": residual, "gain": gain},
        **{"statistics": statistics, "algorithm": algorithm, "stride": stride, "before": before, "out": out},
    }
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
