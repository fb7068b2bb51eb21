"""Checks of arguments that several ops share; errors read ``<op>: <argument> must ..., got ...``."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def described(tensor: Tensor) -> str:
    """Dtype, shape and device, for error messages."""
    return f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"


def check_tensor(op: str, name: str, value: object) -> None:
    """A `TypeError` unless value is a tensor, and one with strides (not sparse)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        kind = "a nested one" if value.is_nested else value.layout
        raise TypeError(f"{op}: {name} must be a dense tensor, got {kind}")


def check_number(op: str, name: str, value: object, least: float = -math.inf) -> None:
    """An error in words unless value is a real number, not NaN, of at least `least`."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not value >= least:
        raise ValueError(f"{op}: {name} must be at least {least}, got {value}")
    check_long(op, name, value)


def check_long(op: str, name: str, value: float) -> None:
    """A `ValueError` for a whole number beyond 64 bits, which some backends of torch take and others do not."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{op}: {name} must be a float or fit 64 bits, got {value}")


def check_whole(op: str, name: str, value: object, low: int, high: int) -> None:
    """An error in words unless value is a whole number in [low, high)."""
    if not isinstance(value, int):
        raise TypeError(f"{op}: {name} must be a whole number, got {type(value).__name__}")
    if not low <= value < high:
        raise ValueError(f"{op}: {name} must be in [{low}, {high}), got {value}")


def device_row(row: int | Tensor) -> tuple[Tensor | None, int]:
    """A row as kernels take it: a tensor or None, and the number that counts without one.

    Raises:
        TypeError: it is neither; an array of one passes for a number with `operator.index`, and would with C++.
    """
    if isinstance(row, Tensor):
        return row, 0
    if not isinstance(row, (int, torch.SymInt)):
        raise TypeError(f"row must be a whole number, got {type(row).__name__}")
    return None, operator.index(row)


def check_flag(op: str, name: str, value: object) -> None:
    """A `TypeError` unless value is true or false, or a whole number that stands for it."""
    if not isinstance(value, int):
        raise TypeError(f"{op}: {name} must be True or False, got {type(value).__name__}")


def check_groups(op: str, groups: object, channels: int) -> None:
    """A `ValueError` unless groups is a whole number that divides the channels."""
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        raise ValueError(f"{op}: groups must divide the {channels} channels, got {groups!r}")


def check_written(op: str, name: str, value: Tensor | None) -> None:
    """A `ValueError` unless value is None or a tensor that can be written: every element of its own, no gradient."""
    if value is None or torch.compiler.is_compiling():
        return
    if value.is_neg():
        raise ValueError(
            f"{op}: {name} must be resolved, because it is written, got one whose sign torch keeps as a bit"
        )
    if torch.is_grad_enabled() and value.requires_grad:
        raise ValueError(f"{op}: {name} must not want a gradient, because it is written, got one that does")
    reach = 0
    for stride, size in sorted((s, n) for s, n in zip(value.stride(), value.shape, strict=True) if n > 1):
        if stride <= reach and value.numel():
            raise ValueError(f"{op}: {name} must have memory for each element, got strides {value.stride()}")
        reach += (size - 1) * stride


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
