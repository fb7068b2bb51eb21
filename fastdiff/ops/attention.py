"""attention: softmax(q k^T * scale) v, without the matrix of all scores.

    out_i = sum_j p_ij v_j        p_ij = exp(scale * q_i.k_j) / sum_j exp(scale * q_i.k_j)

q is (..., N, D), k (..., M, D), v (..., M, E) with the same leading dimensions (batch and heads), float32, float16 or
bfloat16 (float64: torch backend), in any strides; there may be more keys than queries (memory tokens, text) or fewer.
out is (..., N, E) in their dtype. Scores and sums are float32.

The C++ kernel is taken where `attention_choice` says that it was measured to be faster than torch's own attention, the
Triton kernels where `fastdiff doctor` has found them the fastest on this device; until then a GPU runs torch's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import attention_choice, device, dispatch, extension
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

_OP = "attention"
#: Up to this many keys, a CPU computes attention (and its gradient) faster by plain products.
_FEW = 64
_WIDEST = 1024


def reference(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`attention` by its formula, in float32 or the dtype of q if that is wider, rounded once."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.matmul(q.to(wide), k.to(wide).transpose(-1, -2)) * scale
    return torch.matmul(scores.softmax(dim=-1), v.to(wide)).to(q.dtype)


def _torch(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Torch's own attention, or plain products where they are faster.

    Of queries that share memory torch 2.13 gives wrong numbers on a CPU, and of keys in half precision whose rows
    do, no gradient: they get memory of their own.
    """
    if q.is_cpu and k.shape[-2] <= _FEW:
        scores = torch.matmul(q * scale, k.transpose(-1, -2))
        return torch.matmul(scores.softmax(dim=-1), v)
    if q.is_cpu and q.stride(-1) == 1 and min(q.stride()[:-1]) < q.shape[-1]:
        q = q.contiguous()
    if q.is_cpu and k.stride(-1) == 1 and k.stride(-2) < k.shape[-1]:
        k = k.contiguous()
    if q.numel() == 0:  # on a GPU torch 2.11 returns None for an empty batch
        return reference(q=q, k=k, v=v, scale=scale)
    return functional.scaled_dot_product_attention(q, k, v, scale=scale)


def _check(inputs: Mapping[str, Any]) -> None:
    check(_OP, inputs)


def _cpp_reasons(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[str]:
    reasons = cpp_reasons(q, k, v)
    if not reasons and dispatch.forced_backend() != "cpp":
        reasons += attention_choice.reasons(q, k, v, wants_gradient(q, k, v))
    return reasons


def _triton_reasons(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[str]:
    return triton_reasons(q, k, v, _WIDEST)


def _shape_class(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> str:
    """Numbers of heads, queries and keys rounded, the width as it is, and the dtype."""
    heads = q.numel() // max(1, q.shape[-2] * q.shape[-1])
    sizes = "x".join(str(rounded(n)) for n in (heads, q.shape[-2], k.shape[-2]))
    return f"{q.dtype} {sizes} of {q.shape[-1]}"


class _Differentiable(torch.autograd.Function):
    """The C++ kernel with the gradient of the torch backend."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return _forward(q, k, v, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        formula = reference if torch.is_grad_enabled() else _torch
        return *gradients_through(formula, ctx.saved_tensors, ctx.scale, gradient), None


class _DifferentiableTriton(torch.autograd.Function):
    """The Triton kernels; a second gradient is that of the reference."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        statistics = q.new_empty((*q.shape[:-2], 2, q.shape[-2]), dtype=torch.float32)
        out = _forward_triton(q, k, v, scale, statistics)
        ctx.save_for_backward(q, k, v, out, statistics)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *inputs, out, statistics = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return *gradients_through(reference, tuple(inputs), ctx.scale, gradient), None
        found = [output_like(t, t) for t in inputs]
        views = map(four_dimensions, (*found, gradient, out, statistics, *inputs))
        torch.ops.fastdiff.attention_backward_triton(*views, ctx.scale)
        return *found, None


def _forward_triton(q: Tensor, k: Tensor, v: Tensor, scale: float, statistics: Tensor | None) -> Tensor:
    from ..kernels import attention as _  # noqa: F401 (registers the ops)

    out = output_like(q, v)
    ours, theirs = four_dimensions(out), map(four_dimensions, (q, k, v))
    torch.ops.fastdiff.attention_triton(ours, statistics, *theirs, scale)
    return out


def _triton(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if wants_gradient(q, k, v):
        return _DifferentiableTriton.apply(q, k, v, scale)
    return _forward_triton(q, k, v, scale, None)


def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    out = output_like(q, v)
    torch.ops.fastdiff.attention_cpp(out, None, q, k, v, scale)
    return out


def _cpp(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if wants_gradient(q, k, v):
        return _Differentiable.apply(q, k, v, scale)
    return _forward(q, k, v, scale)


extension.register_fake("attention_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON, waits=True),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", _torch, lambda **_: []),
    shape_class=_shape_class,
)


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale) v.

    Args:
        q: (..., N, D) queries.
        k: (..., M, D) keys, M at least 1.
        v: (..., M, E) values.
        scale: factor of the scores; None: D ** -0.5.

    Returns:
        (..., N, E) in the dtype of q.

    Raises:
        TypeError: an input is not a floating-point tensor of at least two dimensions.
        ValueError: shapes, dtypes or devices do not fit each other.

    Source: Vaswani et al. 2017, eq. 1; the walk over keys with corrected sums: Dao et al. 2022 (FlashAttention).
    """
    if scale is None and isinstance(q, Tensor) and q.dim() > 0:
        scale = max(1, q.shape[-1]) ** -0.5
    return dispatch.run(_OP, _BACKENDS, {"q": q, "k": k, "v": v, "scale": scale}, _check)
