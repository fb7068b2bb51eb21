"""channel_statistics: what a group norm needs of a feature map, measured in one read.

    statistics[b, p] = (count, mean, sum of (x - mean)**2) of every channel over stretch p of the pixels of sample b

x (B, C, H, W) float32 (float64: torch backend); statistics (B, P, 3, C). A stretch is `stretch_pixels(C)` neighbouring
pixels in row order, the last one what is left: cut by the shape of one sample alone, so that neither the batch nor
the number of threads changes a bit. `norm_factors` joins stretches; `conv3x3` makes the same numbers of its output.

The raw op ``torch.ops.fastdiff.channel_statistics_cpp(statistics, x)`` fills a contiguous float32 statistics (B, P, 3,
C) with P = `stretches` from a channels_last x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import dispatch, extension
from .arguments import check_tensor, described, wants_gradient
from .shape_classes import of_maps

_OP = "channel_statistics"


def stretch_pixels(channels: int) -> int:
    """Pixels of one stretch: near 16384 numbers, a multiple of 16."""
    return max(16, 16384 // max(1, channels) // 16 * 16)


def stretches(channels: int, pixels: int) -> int:
    """Number of stretches P of a map of so many channels and pixels."""
    return -(-pixels // stretch_pixels(channels))


def reference(*, x: Tensor) -> Tensor:
    """`channel_statistics` in plain torch: every stretch is centred on its own mean."""
    parts = x.flatten(2).split(stretch_pixels(x.shape[1]), dim=2)
    return torch.stack([_moments(part) for part in parts], dim=1)


def _moments(part: Tensor) -> Tensor:
    mean = part.mean(2)
    squares = (part - mean.unsqueeze(2)).square().sum(2)
    return torch.stack([torch.full_like(mean, part.shape[2]), mean, squares], dim=1)


def check_float_map(op: str, name: str, x: Any) -> None:
    """A `TypeError` unless x is a float32 or float64 (B, C, H, W) with at least one channel and pixel."""
    check_tensor(op, name, x)
    if x.dim() != 4 or 0 in x.shape[1:] or x.dtype not in (torch.float32, torch.float64):
        wanted = "float32 (B, C, H, W) with C, H, W >= 1"
        raise TypeError(f"{op}: {name} must be {wanted}, got {described(x)}")


def _check(inputs: Mapping[str, Any]) -> None:
    check_float_map(_OP, "x", inputs["x"])


def float32_on_cpu(**inputs: Any) -> list[str]:
    """Why C++ kernels that compute in float32 without gradients cannot run these inputs."""
    reasons = []
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            continue
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if value.dtype != torch.float32:
            reasons.append(f"{name} is {value.dtype}, it computes in float32")
    if wants_gradient(*inputs.values()):
        reasons.append("a gradient is wanted, it has none")
    return reasons


def _cpp(*, x: Tensor) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    parts = stretches(x.shape[1], x.shape[2] * x.shape[3])
    statistics = x.new_empty((x.shape[0], parts, 3, x.shape[1]))
    torch.ops.fastdiff.channel_statistics_cpp.default(statistics, x)
    return statistics


def _shape_class(*, x: Tensor, **_: Any) -> str:
    return of_maps(x)


extension.register_fake("channel_statistics_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("cpp", _cpp, float32_on_cpu, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def channel_statistics(x: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations of every channel over stretches of pixels.

    Args:
        x: (B, C, H, W) float32.

    Returns:
        (B, P, 3, C): count, mean, sum of squared deviations from that mean, for `norm_factors`.

    Raises:
        TypeError: x is not a float32 (B, C, H, W), or has no channel or pixel.

    Source: Chan, Golub and LeVeque 1983, for joining such triples.
    """
    return dispatch.run(_OP, _BACKENDS, {"x": x}, _check)
