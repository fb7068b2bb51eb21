"""What `conv1x1` and `conv3x3` share: the norm before the product, checks of inputs, what their kernels can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .arguments import (
    check_exactly,
    check_flag,
    check_number,
    check_tensor,
    check_written,
    described,
    overlap,
)
from .channel_statistics import float32_on_cpu


class NormFactors(NamedTuple):
    """What a normalisation before the convolution does: x * pixel * factor + offset.

    Attributes:
        channels: (B, 2, C) float32, factor and offset of each channel, as `norm_factors` gives them.
        pixel: (B, H, W) float32, as `pixel_norms` gives it, or None for 1.
    """

    channels: Tensor
    pixel: Tensor | None = None


def normalised(x: Tensor, x2: Tensor | None, norm: NormFactors | None, activate: bool) -> Tensor:
    """The prologue in plain torch: concatenation, normalisation, SiLU."""
    v = x if x2 is None else torch.cat([x, x2], dim=1)
    if norm is not None:
        ones = [1] * (x.dim() - 2)
        factor, offset = (part.reshape(*part.shape, *ones) for part in norm.channels.unbind(1))
        v = v * factor + offset if norm.pixel is None else v * norm.pixel.unsqueeze(1) * factor + offset
    return functional.silu(v) if activate else v


def check_norm(op: str, norm: Any, x: Tensor, channels: int) -> None:
    """An error in words unless norm is None or factors of so many channels that fit x."""
    if norm is None:
        return
    if not isinstance(norm, NormFactors):
        raise TypeError(f"{op}: norm must be NormFactors or None, got {type(norm).__name__}")
    check_tensor(op, "norm.channels", norm.channels)
    check_exactly(op, "norm.channels", norm.channels, x.dtype, (x.shape[0], 2, channels), x)
    check_exactly(op, "norm.pixel", norm.pixel, x.dtype, (x.shape[0], *x.shape[2:]), x)


def check_fits(op: str, weight: Tensor, x: Tensor, shape: tuple[int | str, ...]) -> None:
    """A `ValueError` unless weight has x's dtype and device and the shape, whose first size is free."""
    if weight.shape[1] != shape[1] or weight.dtype != x.dtype or weight.device != x.device:
        wanted = f"{x.dtype} ({', '.join(map(str, shape))}) on {x.device}"
        raise ValueError(f"{op}: weight must be {wanted}, got {described(weight)}")


def check_flags(op: str, inputs: Mapping[str, Any], *flags: str) -> None:
    """A `TypeError` unless these flags are true or false, and gain is a number."""
    check_number(op, "gain", inputs["gain"])
    for name in flags:
        check_flag(op, name, inputs[name])


def check_sums(op: str, inputs: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """A `ValueError` unless bias, add, residual and out fit a result of this shape."""
    x = inputs["x"]
    check_exactly(op, "bias", inputs["bias"], x.dtype, shape[1:2], x)
    check_exactly(op, "add", inputs["add"], x.dtype, shape[:2], x)
    check_exactly(op, "residual", inputs["residual"], x.dtype, shape, x)
    check_exactly(op, "out", inputs["out"], x.dtype, shape, x)
    if inputs["out"] is not None:
        _check_out(op, inputs)


def _check_out(op: str, inputs: Mapping[str, Any]) -> None:
    """What is written is channels last, and apart from all that is read; it may be the residual itself."""
    out, residual, norm = inputs["out"], inputs["residual"], inputs["norm"] or NormFactors(inputs["x"])
    check_written(op, "out", out)
    if not out.movedim(1, -1).is_contiguous():
        raise ValueError(f"{op}: out must be channels last, got strides {out.stride()}")
    read = {name: inputs[name] for name in ("x", "x2", "bias", "add")}
    for name, value in {**read, "norm.channels": norm.channels, "norm.pixel": norm.pixel}.items():
        if value is not None and overlap(out, value):
            raise ValueError(f"{op}: out must not share memory with the input, got part of {name}")
    if residual is not None and overlap(out, residual):
        same = out.data_ptr() == residual.data_ptr() and out.stride() == residual.stride()
        if not same:
            raise ValueError(f"{op}: out must be the residual itself or apart from it, got parts of it")


def check_data(place: str, data: Tensor | None, floats: int) -> None:
    """A `ValueError` unless packed data has so many numbers."""
    if data is None or data.numel() != floats:
        got = "none" if data is None else f"{data.numel()} numbers"
        raise ValueError(f"{place}: weight must be what pack() gives, {floats} numbers of data, got {got}")


def cpp_reasons(*, weight: Any, norm: NormFactors | None, **inputs: Any) -> list[str]:
    """Why the C++ kernels cannot run these inputs; the weight may be packed."""
    packed = not isinstance(weight, Tensor)
    factors = {} if norm is None else {"norm.channels": norm.channels, "norm.pixel": norm.pixel}
    reasons = float32_on_cpu(weight=weight.weight if packed else weight, **inputs, **factors)
    if packed and weight.data is None:
        reasons.append("the weight was packed where there is no C++ backend")
    return reasons
