"""rms_norm_silu: RMS normalisation over channels, optional scale and shift per sample, optional SiLU, in one pass.

    n = x / max(|x|_C, eps)                        |x|_C: Euclidean norm over the channels of one pixel
    u = n * sqrt(C) * weight * (1 + scale) + shift
    y = u * sigmoid(u)                             or u, where activate is False

x (B, C, ...) is float32, float16 or bfloat16 (float64: torch backend); y has its dtype and, where x is dense, its
strides. The norm and everything between are float32. weight is (C,), scale, shift are (B, C), each may be left out,
in float32 or half precision. What is normalised may be a sum of maps, and may be returned: `norm_sums`.

A pixel whose squares do not fit float32 (values from about 1e18 on) becomes NaN; torch's own expressions give 0 there.
A norm below about 1e-19, whose square is not a normal float32, may count as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch, extension, norm_sums
from .arguments import check_flag, check_number, wants_gradient
from .feature_maps import (
    check_map,
    computed,
    cpp_reasons,
    dense,
    dense_floats,
    factor_gradients,
    gradients_of,
    laid_out_like,
    modulated,
    plain_rows,
    straight,
    triton_reasons,
    unless_infinite,
)
from .shape_classes import of_maps

_OP = "rms_norm_silu"


def reference(
    *,
    x: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> Tensor:
    """`rms_norm_silu` in plain torch, in float32 or the dtype of x if that is wider, rounded once."""
    wide, ones = computed(x), [1] * (x.dim() - 2)
    norm = unless_infinite(torch.linalg.vector_norm(wide, dim=1, keepdim=True)).clamp_min(eps)
    u = wide * norm.reciprocal() * math.sqrt(x.shape[1])
    u = u if weight is None else u * weight.to(wide.dtype).reshape(-1, *ones)
    u = modulated(u, scale, shift)
    return (torch.nn.functional.silu(u) if activate else u).to(x.dtype)


def _check(inputs: Mapping[str, Any]) -> None:
    check_map(_OP, inputs)
    check_number(_OP, "eps", inputs["eps"], _SMALLEST)
    check_flag(_OP, "activate", inputs["activate"])


_SMALLEST = 1e-37  # its reciprocal is a float32


def _units(x: Tensor) -> int:
    """Stretches of pixels whose sums the kernel writes apart, per sample (csrc/include/fastdiff/norms.h)."""
    size = max(64, 16384 // x.shape[1] // 64 * 64)
    return -(-math.prod(x.shape[2:]) // size)


class _Differentiable(torch.autograd.Function):
    """The kernels of one backend with their gradient; a second gradient is that of the reference."""

    @staticmethod
    def forward(
        ctx: Any, backend: str, eps: float, activate: bool, x: Tensor, *factors: Tensor | None
    ) -> Tensor:
        x = dense(x)
        ctx.save_for_backward(x, *factors)
        ctx.backend, ctx.eps, ctx.activate = backend, eps, activate
        return _forward(backend, eps, activate, x, *factors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *factors = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            named = dict(zip(_FACTORS, factors, strict=True))
            y = reference(x=x, **named, eps=ctx.eps, activate=ctx.activate)
            return None, None, None, *gradients_of(y, (x, *factors), gradient)
        out = torch.empty_like(x)
        sums = x.new_empty((x.shape[0], _units(x), 2, x.shape[1]), dtype=torch.float32)
        getattr(torch.ops.fastdiff, f"rms_norm_silu_backward_{ctx.backend}").default(
            out, sums, laid_out_like(gradient, x), x, *_factors(*factors), ctx.eps, ctx.activate
        )
        plain, along = sums.sum(1).unbind(1)
        along = along * math.sqrt(x.shape[1])
        weight, scale, shift = factors
        d_weight, _, d_scale, d_shift = factor_gradients(plain, along, weight, None, scale, shift)
        return None, None, None, out, d_weight, d_scale, d_shift


#: In the order that the kernels take them.
_FACTORS = ("weight", "scale", "shift")


def _factors(weight: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor | None, ...]:
    return dense_floats(weight), plain_rows(scale), plain_rows(shift)


def _forward(backend: str, eps: float, activate: bool, x: Tensor, *factors: Tensor | None) -> Tensor:
    out = torch.empty_like(x)
    read = norm_sums.factors if backend == "triton" else _factors
    getattr(torch.ops.fastdiff, f"rms_norm_silu_{backend}").default(out, x, *read(*factors), eps, activate)
    return out


def _on(backend: str, *, x: Tensor, eps: float, activate: bool, **given: Tensor | None) -> Tensor:
    factors = [given[name] for name in _FACTORS]
    if wants_gradient(x, *factors):
        return _Differentiable.apply(backend, eps, activate, x, *factors)
    return _forward(backend, eps, activate, dense(x), *factors)


def _cpp(**inputs: Any) -> Tensor:
    return _on("cpp", **inputs)


#: A Triton program holds all channels of a pixel.
_MOST_CHANNELS = 1024


def _triton_reasons(**inputs: Any) -> list[str]:
    channels = inputs["x"].shape[1]
    many = (
        [f"x has {channels} channels, it takes at most {_MOST_CHANNELS}"] if channels > _MOST_CHANNELS else []
    )
    return triton_reasons(**inputs) + many


def _triton(**inputs: Any) -> Tensor:
    from ..kernels import rms_norm_silu  # noqa: F401 (registers the ops)

    return _on("triton", **inputs)


def _shape_class(*, x: Tensor, **_: Any) -> str:
    return of_maps(x)


def _check_with_sums(inputs: Mapping[str, Any]) -> None:
    norm_sums.check_sums(_OP, inputs)
    _check(norm_sums.whole_map(inputs))


def _triton_of_sum(*, x: Tensor, with_sum: bool, last: bool, **given: Any) -> norm_sums.Result:
    if wants_gradient(x, *given.values()):
        return norm_sums.composed(rms_norm_silu, {"x": x, "with_sum": with_sum, "last": last, **given})
    from ..kernels import rms_norm_silu as _  # noqa: F401 (registers the ops)

    y, s, read = norm_sums.read_by_kernels(x, with_sum, last, given, *_FACTORS)
    torch.ops.fastdiff.rms_norm_silu_of_sum_triton.default(
        y, s, *read, given["eps"], given["activate"], given["after"]
    )
    return y if s is None else (y, s)


def _reasons_of_sum(**inputs: Any) -> list[str]:
    return _triton_reasons(**norm_sums.whole_map(inputs))


for _name in ("rms_norm_silu_cpp", "rms_norm_silu_backward_cpp"):
    extension.register_fake(_name)
_RAW = extension.raw(_OP)
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cpp", _cpp, cpp_reasons, extension.MISSING, verifies=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)
_OF_SUMS = norm_sums.backends(reference, _triton_of_sum, _reasons_of_sum, ("cpp", extension.MISSING))


def rms_norm_silu(
    x: Tensor,
    weight: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-12,
    activate: bool = True,
    add: Tensor | None = None,
    residual: Tensor | None = None,
    residual_add: Tensor | None = None,
    x2: Tensor | None = None,
    after: bool = False,
    with_sum: bool = False,
    last: bool = False,
) -> Any:
    """RMS norm over channels -> (optional) * (1 + scale) + shift -> (optional) SiLU.

    Args:
        x: (B, C, ...).
        weight: (C,) factor after the normalisation, None for 1.
        scale: (B, C), None for 0.
        shift: (B, C), None for 0.
        eps: lower bound of the norm over channels, at least 1e-37.
        activate: apply SiLU.
        add: (B, C) or (C,) added to every pixel of x before it is normalised, None for 0.
        residual: (B, C, ...) added to x, None for 0.
        residual_add: (B, C) or (C,) added with the residual, None for 0.
        x2: (B, C2, ...) joined to x behind its channels, after what is added; weight, bias, scale and shift then have
            C + C2 channels, and so has the result.
        after: add residual and residual_add to the result instead.
        with_sum: return what was normalised, too, rounded to the type of x.
        last: the result's channels are last in memory, where it has two or three dimensions of pixels.

    Returns:
        (B, C, ...) in the dtype and, where x is dense, in the strides of x; with `with_sum` that and the sum.

    Raises:
        TypeError: x is not a floating-point tensor (B, C, ...).
        ValueError: a factor does not fit x, or eps is too small.

    Source: Zhang and Sennrich 2019, over channels as in the denoising-diffusion toolbox of P. Wang.
    """
    around = norm_sums.around(add, residual, residual_add, x2, after, with_sum, last)
    if not around and not isinstance(eps, int):
        out = straight(_OP, _RAW, _Differentiable, x, (weight, scale, shift), (eps, activate))
        if out is not None:
            return out
    inputs = {
        **{"x": x, "weight": weight, "scale": scale, "shift": shift},
        **{"eps": eps, "activate": activate},
    }
    if around:
        return dispatch.run(_OP, _OF_SUMS, {**inputs, **around}, _check_with_sums)
    if isinstance(eps, int):  # C++ takes 2**63
        _check(inputs)
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
