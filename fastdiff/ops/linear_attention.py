"""linear_attention: softmax over the width of q, softmax over the rows of k, and no product of queries with keys.

    context = softmax_over_rows(k)^T v        out = softmax_over_columns(q) * scale * context

q is (..., N, D), k (..., M, D), v (..., M, E) with the same leading dimensions (batch and heads), float32, float16 or
bfloat16 (float64: torch backend), in any strides. out is (..., N, E) in their dtype. Everything between is float32. The
cost grows with N + M, not with N M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch, extension
from .arguments import wants_gradient
from .attention_inputs import (
    check,
    cpp_reasons,
    four_dimensions,
    gradients_through,
    output_like,
    triton_reasons,
)
from .shape_classes import rounded

_OP = "linear_attention"
#: The widest head of the Triton kernels: they hold a context of it in registers.
_WIDEST = 64


def reference(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`linear_attention` by its formula, in float32 or the dtype of q if that is wider, rounded once."""
    wide = torch.promote_types(q.dtype, torch.float32)
    context = torch.matmul(k.to(wide).softmax(dim=-2).transpose(-1, -2), v.to(wide))
    return torch.matmul(q.to(wide).softmax(dim=-1) * scale, context).to(q.dtype)


def _check(inputs: Mapping[str, Any]) -> None:
    check(_OP, inputs)


def _cpp_reasons(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[str]:
    return cpp_reasons(q, k, v)


def _triton_reasons(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[str]:
    return triton_reasons(q, k, v, _WIDEST)


def _forward_cpp(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    out = output_like(q, v)
    torch.ops.fastdiff.linear_attention_cpp(out, q, k, v, scale)
    return out


def _forward_triton(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    from ..kernels import linear_attention as _  # noqa: F401 (registers the op)

    out = output_like(q, v)
    torch.ops.fastdiff.linear_attention_triton(*map(four_dimensions, (out, q, k, v)), scale)
    return out


class _Differentiable(torch.autograd.Function):
    """A kernel with the gradient of the reference."""

    @staticmethod
    def forward(ctx: Any, forward: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return forward(q, k, v, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, *gradients_through(reference, ctx.saved_tensors, ctx.scale, gradient), None


def _cpp(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if wants_gradient(q, k, v):
        return _Differentiable.apply(_forward_cpp, q, k, v, scale)
    return _forward_cpp(q, k, v, scale)


def _triton(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if wants_gradient(q, k, v):
        return _Differentiable.apply(_forward_triton, q, k, v, scale)
    return _forward_triton(q, k, v, scale)


def _shape_class(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> str:
    return f"{q.dtype} {rounded(q.shape[-2])}x{rounded(k.shape[-2])} of {q.shape[-1]}"


extension.register_fake("linear_attention_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """softmax(q over D) * scale, times softmax(k over rows)^T v.

    Args:
        q: (..., N, D) queries.
        k: (..., M, D) keys, M at least 1.
        v: (..., M, E) values.
        scale: factor of the result; None: D ** -0.5.

    Returns:
        (..., N, E) in the dtype of q.

    Raises:
        TypeError: an input is not a floating-point tensor of at least two dimensions.
        ValueError: shapes, dtypes or devices do not fit each other.

    Source: Shen et al. 2018 (efficient attention), eq. 2, with both normalisations by softmax.
    """
    if scale is None and isinstance(q, Tensor) and q.dim() > 0:
        scale = max(1, q.shape[-1]) ** -0.5
    return dispatch.run(_OP, _BACKENDS, {"q": q, "k": k, "v": v, "scale": scale}, _check)
