"""What a bridge is called with: states, times, noise and numbers, checked and brought into shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) numbers shaped to broadcast over the other axes of `like`, in its dtype."""
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))


def times_of(x: Tensor, t: Tensor | int, steps: int, first: int) -> Tensor:
    """(B,) int64 times of states x (B, ...), all of them first ... steps - 1.

    Raises:
        TypeError: for times that are not integers.
        ValueError: for times out of range or of another shape.
    """
    times = torch.as_tensor(t, device=x.device)
    if times.dtype not in _WHOLE:
        raise TypeError(f"DiffusionBridge: t must be integers, got {times.dtype}")
    if times.ndim > 1 or (times.ndim == 1 and len(times) not in (1, len(x))):
        raise ValueError(f"DiffusionBridge: t must be one time or ({len(x)},), got {tuple(times.shape)}")
    if times.numel() and not first <= int(times.min()) <= int(times.max()) < steps:
        raise ValueError(
            f"DiffusionBridge: t must be in {first} ... {steps - 1}, got {int(times.min())} ... {int(times.max())}"
        )
    return times.long().expand(len(x))


def number_tensor(values: Any, name: str) -> Tensor:
    """Numbers, lists of them or tensors as a float64 tensor.

    Raises:
        TypeError: naming the argument, for what is not real numbers.
    """
    try:
        if isinstance(values, Tensor) and values.is_complex():
            raise TypeError
        return torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"DiffusionBridge: {name} must be real numbers, got {values!r}") from None


def state_of(x: Tensor) -> Tensor:
    """States (B, ...) as float32, or float64 where they are.

    Raises:
        TypeError: if it is not a floating-point tensor.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim):
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"DiffusionBridge: x must be a floating tensor (B, ...), got {got}")
    return x if x.dtype == torch.float64 else x.float()


def fitted(x: Tensor, given: Tensor, name: str) -> Tensor:
    """`given` in the dtype of the states x.

    Raises:
        ValueError: when it has another shape.
    """
    if given.shape != x.shape:
        raise ValueError(
            f"DiffusionBridge: {name} must be like x, {tuple(x.shape)}, got {tuple(given.shape)}"
        )
    return given.to(state_of(x).dtype)


def noise_of(x: Tensor, epsilon: Tensor | None) -> Tensor:
    """The noise given for states x, or one of torch's generator."""
    return torch.randn_like(x) if epsilon is None else fitted(x, epsilon, "epsilon")


def drawn(mean: Tensor, variance: Tensor, epsilon: Tensor | None) -> Tensor:
    """A draw from Gaussians of mean (B, ...) and variance (B, 1, ...), with the noise `epsilon` where given."""
    return mean + variance.sqrt() * noise_of(mean, epsilon)


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` as a tuple of whole numbers >= 0.

    Raises:
        ValueError: for anything else.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in sizes):
        raise ValueError(f"DiffusionBridge: shape must be whole numbers, got {shape!r}")
    return sizes
