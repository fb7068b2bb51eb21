"""attention: softmax(q k^T * scale) v, without the matrix of all scores.

    out_i = sum_j p_ij v_j        p_ij = exp(scale * q_i.k_j) / sum_j exp(scale * q_i.k_j)

q is (..., N, D), k (..., M, D), v (..., M, E) with the same leading dimensions (batch and heads), float32, float16 or
bfloat16 (float64: torch backend), in any strides; there may be more keys than queries (memory tokens, text) or fewer.
out is (..., N, E) in their dtype. Scores and sums are float32.

The C++ kernel is taken where `attention_choice` says that it was measured to be faster than torch's own attention, the
Triton kernels only where they are forced: on a GPU torch's own attention runs until somebody has timed ours there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from . import attention_choice, dispatch, extension
from .arguments import FLOATS, check_tensor, described, wants_gradient

_OP = "attention"
#: Up to this many keys, a CPU computes attention (and its gradient) faster by plain products.
_FEW = 64


def reference(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`attention` by its formula, in float32 or the dtype of q if that is wider, rounded once."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.matmul(q.to(wide), k.to(wide).transpose(-1, -2)) * scale
    return torch.matmul(scores.softmax(dim=-1), v.to(wide)).to(q.dtype)


def _torch(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Torch's own attention, or plain products where they are faster."""
    if q.is_cpu and k.shape[-2] <= _FEW:
        scores = torch.matmul(q * scale, k.transpose(-1, -2))
        return torch.matmul(scores.softmax(dim=-1), v)
    return functional.scaled_dot_product_attention(q, k, v, scale=scale)


def _check(inputs: Mapping[str, Any]) -> None:
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    for name, value in (("q", q), ("k", k), ("v", v)):
        check_tensor(_OP, name, value)
        if value.dim() < 2 or value.dtype not in (*FLOATS, torch.float64):
            wanted = "float32, float16, bfloat16 or float64 (..., rows, width)"
            raise TypeError(f"{_OP}: {name} must be {wanted}, got {described(value)}")
        if value.dtype != q.dtype or value.device != q.device or value.shape[:-2] != q.shape[:-2]:
            wanted = f"{q.dtype} on {q.device} with the leading dimensions of q, {tuple(q.shape[:-2])}"
            raise ValueError(f"{_OP}: {name} must be {wanted}, got {described(value)}")
    if 0 in k.shape[-2:] or k.shape[-1] != q.shape[-1]:
        wanted = f"(..., at least 1, {q.shape[-1]}), as wide as q"
        raise ValueError(f"{_OP}: k must be {wanted}, got {described(k)}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"{_OP}: v must have the {k.shape[-2]} rows of k, got {described(v)}")
    if not isinstance(inputs["scale"], (int, float)):
        raise TypeError(f"{_OP}: scale must be a number, got {type(inputs['scale']).__name__}")


def _cpp_reasons(*, q: Tensor, k: Tensor, v: Tensor, scale: float) -> list[str]:
    reasons = []
    for name, value in (("q", q), ("k", k), ("v", v)):
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if value.dtype not in FLOATS:
            reasons.append(f"{name} is {value.dtype}, it computes in float32")
    if q.dim() > 8:
        reasons.append(f"q has {q.dim()} dimensions, it takes at most 8")
    if not reasons and dispatch.forced_backend() != "cpp":
        reasons += attention_choice.reasons(q, k, v, wants_gradient(q, k, v))
    return reasons


def output_like(q: Tensor, v: Tensor) -> Tensor:
    """An uninitialised (..., N, E), with heads beside each other for each row where q (B, heads, N, D) has them so."""
    shape = (*q.shape[:-1], v.shape[-1])
    if q.dim() == 4 and q.stride(1) < q.stride(2):
        b, heads, rows, width = shape
        return q.new_empty((b, rows, heads, width)).transpose(1, 2)
    return q.new_empty(shape)


class _Differentiable(torch.autograd.Function):
    """The C++ kernel with the gradient of the torch backend."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return _forward(q, k, v, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved, again = ctx.saved_tensors, torch.is_grad_enabled()
        with torch.enable_grad():
            q, k, v = (t if again else t.detach().requires_grad_(t.requires_grad) for t in saved)
            out = (reference if again else _torch)(q=q, k=k, v=v, scale=ctx.scale)
            wanted = [t for t in (q, k, v) if t.requires_grad]
            found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=again))
        return *(next(found) if t.requires_grad else None for t in (q, k, v)), None


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
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", _torch, lambda **_: []),
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
        TypeError: an input is no floating tensor of at least two dimensions.
        ValueError: shapes, dtypes or devices do not fit each other.

    Source: Vaswani et al. 2017, eq. 1; the walk over keys with corrected sums: Dao et al. 2022 (FlashAttention).
    """
    if scale is None and isinstance(q, Tensor) and q.dim() > 0:
        scale = max(1, q.shape[-1]) ** -0.5
    return dispatch.run(_OP, _BACKENDS, {"q": q, "k": k, "v": v, "scale": scale}, _check)
