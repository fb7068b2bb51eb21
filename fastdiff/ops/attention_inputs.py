"""What `attention` and `linear_attention` share: checks of q, k and v, what their kernels can take, and the output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import device
from .arguments import FLOATS, check_long, check_tensor, described

#: Heads are the second dimension of a grid of programs, which CUDA limits.
_MOST_HEADS = 65535


def check(op: str, inputs: Mapping[str, Any]) -> None:
    """Errors in words unless q (..., N, D), k (..., M, D) and v (..., M, E) fit each other and scale is a number."""
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    for name, value in (("q", q), ("k", k), ("v", v)):
        check_tensor(op, name, value)
        if value.dim() < 2 or value.dtype not in (*FLOATS, torch.float64):
            wanted = "float32, float16, bfloat16 or float64 (..., rows, width)"
            raise TypeError(f"{op}: {name} must be {wanted}, got {described(value)}")
        if value.dtype != q.dtype or value.device != q.device or value.shape[:-2] != q.shape[:-2]:
            wanted = f"{q.dtype} on {q.device} with the leading dimensions of q, {tuple(q.shape[:-2])}"
            raise ValueError(f"{op}: {name} must be {wanted}, got {described(value)}")
    if 0 in k.shape[-2:] or k.shape[-1] != q.shape[-1]:
        wanted = f"(..., at least 1, {q.shape[-1]}), as wide as q"
        raise ValueError(f"{op}: k must be {wanted}, got {described(k)}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"{op}: v must have the {k.shape[-2]} rows of k, got {described(v)}")
    if not isinstance(inputs["scale"], (int, float)):
        raise TypeError(f"{op}: scale must be a number, got {type(inputs['scale']).__name__}")
    check_long(op, "scale", inputs["scale"])


def cpp_reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """Why the C++ kernels cannot run these inputs."""
    reasons = []
    for name, value in (("q", q), ("k", k), ("v", v)):
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if value.dtype not in FLOATS:
            reasons.append(f"{name} is {value.dtype}, it computes in float32")
    if q.dim() > 8:
        reasons.append(f"q has {q.dim()} dimensions, it takes at most 8")
    return reasons


def triton_reasons(q: Tensor, k: Tensor, v: Tensor, widest: int) -> list[str]:
    """Why the Triton kernels cannot run these inputs, heads of which may be at most `widest` wide."""
    reasons = device.triton_reasons({"q": q.detach(), "k": k.detach(), "v": v.detach()})
    if q.dtype not in FLOATS:
        reasons.append(f"q is {q.dtype}, it computes in float32")
    if v.shape[-1] != q.shape[-1]:
        reasons.append(f"v is {v.shape[-1]} wide, it takes v as wide as q, {q.shape[-1]}")
    heads = math.prod(q.shape[:-2])
    if heads > _MOST_HEADS:
        reasons.append(f"q has {heads} heads in all, it takes at most {_MOST_HEADS}")
    if q.shape[-1] > widest:
        reasons.append(f"q is {q.shape[-1]} wide, it takes at most {widest}")
    return reasons


def output_like(q: Tensor, v: Tensor) -> Tensor:
    """An uninitialised (..., N, E), with heads beside each other for each row where q (B, heads, N, D) has them so."""
    shape = (*q.shape[:-1], v.shape[-1])
    if q.dim() == 4 and q.stride(1) < q.stride(2):
        b, heads, rows, width = shape
        return q.new_empty((b, rows, heads, width)).transpose(1, 2)
    return q.new_empty(shape)


def four_dimensions(t: Tensor) -> Tensor:
    """t as (batch, heads, rows, width) with dense rows, as the Triton kernels take it; a view where that is one."""
    t = t if t.stride(-1) == 1 else t.contiguous()
    if t.dim() == 4:
        return t
    lead = t.shape[:-2]
    return t.reshape(math.prod(lead[:-1]), lead[-1] if lead else 1, *t.shape[-2:])


def gradients_through(
    formula: Any, saved: tuple[Tensor, ...], scale: float, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k and v by way of `formula`, themselves differentiable where that is wanted."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        q, k, v = (t if again else t.detach().requires_grad_(t.requires_grad) for t in saved)
        out = formula(q=q, k=k, v=v, scale=scale)
        wanted = [t for t in (q, k, v) if t.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=again))
    return tuple(next(found) if t.requires_grad else None for t in (q, k, v))
