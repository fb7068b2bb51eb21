"""Checks of arguments that several ops share; errors read ``<op>: <argument> must ..., got ...``."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def described(tensor: Tensor) -> str:
    """Dtype, shape and device, for error messages."""
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


def check_tensor(op: str, name: str, value: object) -> None:
    """A `TypeError` unless value is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")


def check_exactly(
    op: str, name: str, value: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...], like: Tensor
) -> None:
    """A `ValueError` unless value is None or of this dtype and shape, on like's device."""
    if value is None:
        return
    check_tensor(op, name, value)
    if value.dtype != dtype or tuple(value.shape) != shape or value.device != like.device:
        raise ValueError(f"{op}: {name} must be {dtype} {shape} on {like.device}, got {described(value)}")


def check_like(op: str, name: str, value: Tensor | None, like: Tensor) -> None:
    """A `ValueError` unless value is None or a floating tensor of like's shape and device (half is allowed)."""
    if value is None:
        return
    check_tensor(op, name, value)
    if value.shape != like.shape or value.device != like.device or value.dtype not in (*FLOATS, like.dtype):
        allowed = "float32, float16 or bfloat16" if like.dtype in FLOATS else str(like.dtype)
        raise ValueError(
            f"{op}: {name} must be {allowed} {tuple(like.shape)} on {like.device}, got {described(value)}"
        )


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the memory ranges of two tensors of one device meet."""
    if a.device != b.device or a.numel() == 0 or b.numel() == 0:
        return False
    return _first(a) < _last(b) and _first(b) < _last(a)


def _first(t: Tensor) -> int:
    return t.data_ptr()


def _last(t: Tensor) -> int:
    reach = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr() + (reach + 1) * t.element_size()


def wants_gradient(*values: object) -> bool:
    """Whether autograd would have to record a call with these arguments."""
    return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in values)
