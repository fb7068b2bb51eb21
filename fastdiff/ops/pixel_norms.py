"""pixel_norms: the factor of every pixel in an RMS norm over channels, in one read.

    norms[b, h, w] = sqrt(C) / max(|x[b, :, h, w]|, eps)

x (B, C1, H, W) float32 (float64: torch backend), followed by the channels of x2 (B, C2, H, W) where given, C = C1 + C2.
`conv3x3` takes the result as the pixel part of its `NormFactors`. Where squares do not fit float32 it is NaN.

The raw op ``torch.ops.fastdiff.pixel_norms_cpp(out, x, x2, eps)`` fills a contiguous float32 out (B, H, W) from
channels_last inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import dispatch, extension
from .arguments import check_number
from .channel_statistics import check_float_map, float32_on_cpu
from .feature_maps import unless_infinite
from .shape_classes import of_maps

_OP = "pixel_norms"


def reference(*, x: Tensor, x2: Tensor | None, eps: float) -> Tensor:
    """`pixel_norms` in plain torch."""
    squares, channels = x.square().sum(1), x.shape[1]
    if x2 is not None:
        squares, channels = squares + x2.square().sum(1), channels + x2.shape[1]
    return channels**0.5 / unless_infinite(squares.sqrt()).clamp_min(eps)


def check_second_map(op: str, x: Tensor, x2: Any) -> None:
    """An error in words unless x2 is None or a map of x's type, device, batch and size."""
    if x2 is None:
        return
    check_float_map(op, "x2", x2)
    same = x2.shape[0] == x.shape[0] and x2.shape[2:] == x.shape[2:]
    if not same or x2.dtype != x.dtype or x2.device != x.device:
        wanted = f"{x.dtype} {(x.shape[0], 'C2', *x.shape[2:])} on {x.device} like x"
        raise ValueError(f"{op}: x2 must be {wanted}, got {tuple(x2.shape)}")


def _check(inputs: Mapping[str, Any]) -> None:
    check_float_map(_OP, "x", inputs["x"])
    check_second_map(_OP, inputs["x"], inputs["x2"])
    check_number(_OP, "eps", inputs["eps"], 0.0)


def _cpp(*, x: Tensor, x2: Tensor | None, eps: float) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    x2 = None if x2 is None else x2.contiguous(memory_format=torch.channels_last)
    out = x.new_empty((x.shape[0], *x.shape[2:]))
    torch.ops.fastdiff.pixel_norms_cpp.default(out, x, x2, eps)
    return out


def _shape_class(*, x: Tensor, x2: Tensor | None, **_: Any) -> str:
    return of_maps(x, x2=x2)


extension.register_fake("pixel_norms_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("cpp", _cpp, float32_on_cpu, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def pixel_norms(x: Tensor, x2: Tensor | None = None, *, eps: float = 1e-12) -> Tensor:
    """The factor sqrt(C) / max(norm over channels, eps) of every pixel.

    Args:
        x: (B, C1, H, W) float32.
        x2: (B, C2, H, W), further channels, or None.
        eps: least norm, at least 0.

    Returns:
        (B, H, W).

    Raises:
        TypeError: x or x2 is not a float32 (B, C, H, W).
        ValueError: x2 does not fit x, or eps is negative.

    Source: Zhang and Sennrich 2019 (RMS norm), in the form with max instead of a sum with eps.
    """
    return dispatch.run(_OP, _BACKENDS, {"x": x, "x2": x2, "eps": eps}, _check)
