"""group_norm_silu: group normalisation, optional scale and shift per sample, optional SiLU, in one pass.

    n = (x - mean) / sqrt(variance + eps)          mean and variance over the C / G channels and all pixels of a group
    u = (n * weight + bias) * (1 + scale) + shift
    y = u * sigmoid(u)                             or u, where activate is False

x (B, C, ...) is float32, float16 or bfloat16 (float64: torch backend); y has its dtype and, where x is dense, its
strides. Statistics and everything between are float32. weight, bias are (C,), scale, shift (B, C), each may be left
out, in float32 or half precision. What is normalised may be a sum of maps, and may be returned: `norm_sums`.

A group whose squares do not fit float32 (values from about 1e18 on) becomes NaN. Plain torch gives NaN or the bias
alone there, as its own group norm does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch, extension, norm_sums
from .arguments import check_flag, check_groups, check_number, wants_gradient
from .feature_maps import (
    Gradients,
    check_map,
    computed,
    cpp_reasons,
    cuda_reasons,
    dense,
    dense_floats,
    factor_gradients,
    gradients_of,
    laid_out_like,
    modulated,
    plain_rows,
    straight,
    triton_reasons,
)
from .shape_classes import of_maps

_OP = "group_norm_silu"
_STATISTICS = 3  # mean as a sum of two floats, 1 / standard deviation


def reference(
    *,
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    activate: bool,
) -> Tensor:
    """`group_norm_silu` in plain torch, in float32 or the dtype of x if that is wider, rounded once."""
    wide = computed(x)
    weight, bias = (None if factor is None else factor.to(wide.dtype) for factor in (weight, bias))
    if weight is None and bias is not None:  # torch fails in the gradient of a bias alone
        weight = torch.ones_like(bias)
    if x.numel() == 0:  # torch refuses some empty maps; the gradients of the factors are zeros all the same
        rows = (None if factor is None else factor.expand(x.shape[:2]) for factor in (weight, bias))
        u = modulated(modulated(wide, *rows), scale, shift)
    else:
        u = modulated(torch.group_norm(wide, int(groups), weight, bias, eps), scale, shift)
    return (torch.nn.functional.silu(u) if activate else u).to(x.dtype)


def _check(inputs: Mapping[str, Any]) -> None:
    check_map(_OP, inputs)
    channels, groups, eps = inputs["x"].shape[1], inputs["groups"], inputs["eps"]
    check_groups(_OP, groups, channels)
    check_number(_OP, "eps", eps, 0.0)
    check_flag(_OP, "activate", inputs["activate"])


class _Differentiable(torch.autograd.Function):
    """The kernels of one backend with their gradient; a second gradient is that of the reference."""

    @staticmethod
    def forward(
        ctx: Any, backend: str, groups: int, eps: float, activate: bool, x: Tensor, *factors: Tensor | None
    ) -> Tensor:
        x = dense(x)
        out, statistics = _forward(backend, groups, eps, activate, x, *factors)
        ctx.save_for_backward(x, *factors, statistics)
        ctx.backend, ctx.groups, ctx.eps, ctx.activate = backend, groups, eps, activate
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *factors, statistics = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            named = dict(zip(_FACTORS, factors, strict=True))
            y = reference(x=x, **named, groups=ctx.groups, eps=ctx.eps, activate=ctx.activate)
            return None, None, None, None, *gradients_of(y, (x, *factors), gradient)
        read = (laid_out_like(gradient, x), statistics, x, *_factors(*factors), ctx.groups, ctx.activate)
        out = torch.empty_like(x)
        return None, None, None, None, out, *_backward(ctx.backend, out, factors, read)


def _backward(backend: str, out: Tensor, factors: list[Tensor | None], read: tuple[Any, ...]) -> Gradients:
    """The gradients of the factors; that of x goes to out."""
    weight, bias, scale, shift = factors
    op = torch.ops.fastdiff.group_norm_silu_backward_cpp
    if backend == "cpp" and scale is None and shift is None:
        d_weight, d_bias = _floats_like(weight), _floats_like(bias)
        op.default(out, None, d_weight, d_bias, *read)
        return _like(d_weight, weight), _like(d_bias, bias), None, None
    sums = out.new_empty((2, *out.shape[:2]), dtype=torch.float32)
    if backend == "cpp":
        op.default(out, sums, None, None, *read)
    else:
        getattr(torch.ops.fastdiff, f"group_norm_silu_backward_{backend}").default(out, sums, *read)
    return factor_gradients(*sums, *factors)


def _floats_like(factor: Tensor | None) -> Tensor | None:
    return None if factor is None else torch.empty_like(factor, dtype=torch.float32)


def _like(gradient: Tensor | None, factor: Tensor | None) -> Tensor | None:
    if gradient is None or factor is None or gradient.dtype == factor.dtype:
        return gradient
    return gradient.to(factor.dtype)


#: In the order that the kernels take them.
_FACTORS = ("weight", "bias", "scale", "shift")


def _factors(
    weight: Tensor | None, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor | None, ...]:
    return dense_floats(weight), dense_floats(bias), plain_rows(scale), plain_rows(shift)


def _forward(
    backend: str, groups: int, eps: float, activate: bool, x: Tensor, *factors: Tensor | None
) -> tuple[Tensor, Tensor]:
    out, statistics = torch.empty_like(x), x.new_empty((x.shape[0], groups, _STATISTICS), dtype=torch.float32)
    read = norm_sums.factors if backend == "triton" else _factors
    getattr(torch.ops.fastdiff, f"group_norm_silu_{backend}").default(
        out, statistics, x, *read(*factors), groups, eps, activate
    )
    return out, statistics


def _on(
    backend: str, *, x: Tensor, groups: int, eps: float, activate: bool, **given: Tensor | None
) -> Tensor:
    factors = [given[name] for name in _FACTORS]
    if wants_gradient(x, *factors):
        return _Differentiable.apply(backend, groups, eps, activate, x, *factors)
    return _forward(backend, groups, eps, activate, dense(x), *factors)[0]


def _cpp(**inputs: Any) -> Tensor:
    return _on("cpp", **inputs)


def _triton(**inputs: Any) -> Tensor:
    from ..kernels import group_norm_silu, group_norm_silu_backward  # noqa: F401 (register the ops)

    return _on("triton", **inputs)


#: A CUDA block has as many threads.
_MOST_OF_A_GROUP = 512


def _cuda_reasons(**inputs: Any) -> list[str]:
    told, channels = cuda_reasons(**inputs), inputs["x"].shape[1] // inputs["groups"]
    if channels > _MOST_OF_A_GROUP:
        told.append(f"a group has {channels} channels, it takes at most {_MOST_OF_A_GROUP}")
    given = {name: inputs[name] for name in _FACTORS if inputs[name] is not None}
    halves = [name for name, factor in given.items() if factor.dtype != torch.float32]
    if halves and not device.WITHOUT_TRITON:
        told.append(
            f"{' and '.join(halves)} would be cast by launches of their own, Triton casts them inside"
        )
    return told


def _cuda(**inputs: Any) -> Tensor:
    return _on("cuda", **inputs)


def _shape_class(*, x: Tensor, **_: Any) -> str:
    return of_maps(x)


def _check_with_sums(inputs: Mapping[str, Any]) -> None:
    norm_sums.check_sums(_OP, inputs)
    _check(norm_sums.whole_map(inputs))


def _triton_of_sum(*, x: Tensor, with_sum: bool, last: bool, **given: Any) -> norm_sums.Result:
    if wants_gradient(x, *given.values()):
        return norm_sums.composed(group_norm_silu, {"x": x, "with_sum": with_sum, "last": last, **given})
    from ..kernels import group_norm_silu as _  # noqa: F401 (registers the ops)

    y, s, read = norm_sums.read_by_kernels(x, with_sum, last, given, *_FACTORS)
    statistics = x.new_empty((x.shape[0], given["groups"], _STATISTICS), dtype=torch.float32)
    torch.ops.fastdiff.group_norm_silu_of_sum_triton.default(
        y, s, statistics, *read, given["groups"], given["eps"], given["activate"], given["after"]
    )
    return y if s is None else (y, s)


for _name in ("group_norm_silu_cpp", "group_norm_silu_backward_cpp", "group_norm_silu_cuda"):
    extension.register_fake(_name)
_RAW = extension.raw(_OP)
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cuda", _cuda, _cuda_reasons, extension.CUDA_MISSING),
    dispatch.Backend("cpp", _cpp, cpp_reasons, extension.MISSING, verifies=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)
_OF_SUMS = norm_sums.backends(
    reference, _triton_of_sum, triton_reasons, ("cuda", extension.CUDA_MISSING), ("cpp", extension.MISSING)
)


def group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    eps: float = 1e-5,
    activate: bool = True,
    add: Tensor | None = None,
    residual: Tensor | None = None,
    residual_add: Tensor | None = None,
    x2: Tensor | None = None,
    after: bool = False,
    with_sum: bool = False,
    last: bool = False,
) -> Any:
    """Group norm -> (optional) * (1 + scale) + shift -> (optional) SiLU.

    Args:
        x: (B, C, ...).
        groups: number of groups G, a divisor of C.
        weight: (C,) factor after the normalisation, None for 1.
        bias: (C,), None for 0.
        scale: (B, C), None for 0.
        shift: (B, C), None for 0.
        eps: added to the variance, at least 0.
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
        ValueError: groups do not divide C, or a factor does not fit x.

    Source: Wu and He 2018; with scale and shift: Dhariwal and Nichol 2021 (adaptive group normalisation).
    """
    around = norm_sums.around(add, residual, residual_add, x2, after, with_sum, last)
    if not around and isinstance(groups, int) and not isinstance(eps, int):
        factors = (weight, bias, scale, shift)
        rest = (groups, eps, activate)
        out = straight(_OP, _RAW, _Differentiable, x, factors, rest, unwritten=(None,))
        if out is not None:
            return out
    inputs = {
        **{"x": x, "groups": groups, "weight": weight, "bias": bias, "scale": scale, "shift": shift},
        **{"eps": eps, "activate": activate},
    }
    if around:
        return dispatch.run(_OP, _OF_SUMS, {**inputs, **around}, _check_with_sums)
    if not isinstance(groups, int) or isinstance(eps, int):  # C++ takes an array of one, and 2**63
        _check(inputs)
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
