"""What the normalisations share: the checks of their inputs, and the layouts that the C++ kernels read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch
from .arguments import FLOATS, check_tensor, described, wants_gradient

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def check_map(op: str, inputs: Mapping[str, Any]) -> None:
    """Errors in words unless x is a floating (B, C, ...) and weight, bias (C,), scale, shift (B, C) fit it."""
    x = inputs["x"]
    check_tensor(op, "x", x)
    if x.dim() < 2 or x.shape[1] < 1 or x.dtype not in (*FLOATS, torch.float64):
        wanted = "float32, float16, bfloat16 or float64 (B, C, ...) with C >= 1"
        raise TypeError(f"{op}: x must be {wanted}, got {described(x)}")
    for name, shape in factor_shapes(*x.shape[:2]).items():
        if inputs.get(name) is not None:
            _check_factor(op, name, inputs[name], shape, x)


def factor_shapes(batch: int, channels: int) -> dict[str, tuple[int, ...]]:
    """What weight, bias, scale and shift must be, by name."""
    row, rows = (channels,), (batch, channels)
    return {"weight": row, "bias": row, "scale": rows, "shift": rows}


def _check_factor(op: str, name: str, value: Any, shape: tuple[int, ...], x: Tensor) -> None:
    check_tensor(op, name, value)
    if tuple(value.shape) != shape or value.device != x.device or value.dtype not in (*FLOATS, x.dtype):
        allowed = "float32, float16 or bfloat16" if x.dtype in FLOATS else f"floating, at most {x.dtype},"
        raise ValueError(f"{op}: {name} must be {allowed} {shape} on {x.device}, got {described(value)}")


def cpp_reasons(**inputs: Any) -> list[str]:
    """Why the C++ kernels cannot run these inputs."""
    reasons = []
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            continue
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if value.dtype not in FLOATS:
            reasons.append(f"{name} is {value.dtype}, it computes in float32")
    if 0 in inputs["x"].shape[1:2]:
        reasons.append("x has no channels")
    return reasons


def triton_reasons(**inputs: Any) -> list[str]:
    """Why the Triton kernels cannot run these inputs."""
    return device.triton_reasons(inputs, trains=True) + _not_computed(inputs)


def cuda_reasons(**inputs: Any) -> list[str]:
    """Why the CUDA C++ kernels, which have no gradient, cannot run these inputs."""
    return device.cuda_reasons(inputs) + _not_computed(inputs)


def _not_computed(inputs: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is {value.dtype}, it computes in float32"
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.dtype not in FLOATS
    ]


def dense(x: Tensor) -> Tensor:
    """x itself where it is contiguous or channels_last, else a copy of it that is."""
    if x.is_contiguous() or _last(x) is not None:
        return x
    if x.stride(1) == 1 and x.dim() in (4, 5):
        return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    return x.contiguous()


def plain(x: Tensor, *factors: Tensor | None) -> bool:
    """Whether the C++ kernels read these as they are: nothing has to be cast or laid out."""
    if not (x.is_contiguous() or _last(x) is not None):
        return False
    for f in factors:
        if f is not None and not (
            f.dtype == torch.float32 and (f.is_contiguous() or f.stride()[-1:] == (1,))
        ):
            return False
    return True


def _last(x: Tensor) -> torch.memory_format | None:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    format_ = formats.get(x.dim())
    return format_ if format_ is not None and x.is_contiguous(memory_format=format_) else None


def laid_out_like(gradient: Tensor, x: Tensor) -> Tensor:
    """The gradient in the type and strides of x."""
    if gradient.stride() == x.stride() and gradient.dtype == x.dtype:
        return gradient
    return torch.empty_like(x).copy_(gradient)


def plain_rows(factor: Tensor | None) -> Tensor | None:
    """A factor as float32 with dense rows."""
    if factor is None:
        return None
    if factor.dtype != torch.float32:  # calls of torch that change nothing cost more than the question
        factor = factor.float()
    return factor if factor.stride(-1) == 1 else factor.contiguous()


def dense_floats(factor: Tensor | None) -> Tensor | None:
    """A factor as contiguous float32."""
    if factor is None or (factor.dtype == torch.float32 and factor.is_contiguous()):
        return factor
    return factor.float().contiguous()


def modulated(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """x * (1 + scale) + shift with factors (B, C), in the dtype of x."""
    ones = [1] * (x.dim() - 2)
    if scale is not None:
        x = x * (1 + scale.to(x.dtype)).reshape(*scale.shape, *ones)
    return x if shift is None else x + shift.to(x.dtype).reshape(*shift.shape, *ones)


def computed(x: Tensor) -> Tensor:
    """x in the dtype that a reference computes in: float32 for half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unless_infinite(value: Tensor) -> Tensor:
    """A variance or a norm, NaN where it is infinite: 1 / infinity is 0, which would leave a finite, wrong result."""
    return value + (value - value)


def factor_gradients(
    sums: Tensor,
    along: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
) -> Gradients:
    """Gradients of weight, bias, scale and shift, each None where there is none.

    Args:
        sums: (B, C), of the gradient before the activation over the pixels.
        along: (B, C), of the same times the normalised x.
        weight: (C,) or None.
        bias: (C,) or None.
        scale: (B, C) or None.
        shift: (B, C) or None.
    """
    factor = None if scale is None else 1 + scale

    def over_batch(values: Tensor, like: Tensor | None) -> Tensor | None:
        if like is None:
            return None
        total = (values if factor is None else values * factor).sum(0)
        return total if total.dtype == like.dtype else total.to(like.dtype)

    d_weight, d_bias = over_batch(along, weight), over_batch(sums, bias)
    d_shift = None if shift is None else sums.to(shift.dtype)
    if scale is None:
        return d_weight, d_bias, None, d_shift
    d_scale = along if weight is None else along * weight
    return d_weight, d_bias, (d_scale if bias is None else d_scale + sums * bias).to(scale.dtype), d_shift


def gradients_of(out: Tensor, inputs: Sequence[Tensor | None], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of a reference's result, themselves differentiable; None for inputs that want none."""
    wanted = [value for value in inputs if value is not None and value.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True))
    return tuple(next(found) if value is not None and value.requires_grad else None for value in inputs)


def straight(
    op: str,
    raw: Callable[..., None] | None,
    differentiable: type[torch.autograd.Function],
    x: Tensor,
    factors: Sequence[Tensor | None],
    rest: tuple[Any, ...],
    unwritten: tuple[None, ...] = (),
) -> Tensor | None:
    """The result of an ordinary call of a norm in C++; None where it is no such call, or is refused.

    Args:
        op: name of the op.
        raw: the kernel, which takes out, `unwritten`, x, the factors and the rest; None if it is not built.
        differentiable: takes "cpp", the rest, x and the factors.
        x: (B, C, ...).
        factors: of the op, in its order.
        rest: what is no tensor.
        unwritten: results that are not wanted here.
    """
    if raw is None or not dispatch.straight(op, x, *factors):
        return None
    try:
        if not plain(x, *factors):
            return None
        if wants_gradient(x, *factors):
            return differentiable.apply("cpp", *rest, x, *factors)  # type: ignore[no-any-return, no-untyped-call]
        out = torch.empty_like(x)
        raw(out, *unwritten, x, *factors, *rest)
    except Exception:  # the ordinary way asks again, and tells why
        return None
    return out
