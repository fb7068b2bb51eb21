"""Right or wrong: the accuracy rule against float64, for results of any structure.

error <= factor * (the error that plain torch makes in the same dtype) + 2 ulp of the largest exact value; the factor
is 2, for gradients 3. Of fewer than 64 numbers torch may happen to be exact: there the floor is 16 ulp, for gradients
64. Where torch gives no finite number although float64 does, anything is right; where neither does, no number may
appear.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FEW = 64


@dataclass(frozen=True)
class Verdict:
    """One compared tensor: its largest error and the allowed one, in units of the largest exact value."""

    what: str
    error: float
    allowed: float

    @property
    def right(self) -> bool:
        """Whether the error is a number within what is allowed."""
        return self.error <= self.allowed


def tensors(result: Any, name: str = "result") -> Iterable[tuple[str, Tensor]]:
    """The tensors of a result with names: of a tensor, a tuple (a named one tells its names), a dict, or None."""
    if isinstance(result, Tensor):
        yield name, result
    elif isinstance(result, dict):
        for key, value in result.items():
            yield from tensors(value, str(key))
    elif isinstance(result, tuple | list):
        fields = getattr(result, "_fields", range(len(result)))
        for field, value in zip(fields, result, strict=True):
            yield from tensors(value, field if isinstance(field, str) else f"{name} {field}")


def compare(ours: Any, plain: Any, exact: Any, factor: float = 2.0) -> list[Verdict]:
    """Verdicts on all tensors of a result.

    Args:
        ours: what a backend gave.
        plain: what the torch backend gives in the same dtype.
        exact: what it gives in float64.
        factor: how much more than torch a backend may err.
    """
    found, wanted, true = (dict(tensors(value)) for value in (ours, plain, exact))
    if found.keys() != wanted.keys():
        return [Verdict(f"results are {sorted(found)}, not {sorted(wanted)}", float("inf"), 0.0)]
    return [_verdict(name, found[name], wanted[name], true[name], factor) for name in found]


def _verdict(name: str, ours: Tensor, plain: Tensor, exact: Tensor, factor: float) -> Verdict:
    ours, plain, exact = (value.detach().cpu() for value in (ours, plain, exact))
    if ours.shape != plain.shape or ours.dtype != plain.dtype:
        got = f"{name} is {ours.dtype} {tuple(ours.shape)}, not {plain.dtype} {tuple(plain.shape)}"
        return Verdict(got, float("inf"), 0.0)
    if not ours.dtype.is_floating_point:
        return Verdict(name, float((ours != plain).sum()), 0.0)
    return floating(name, ours, plain, exact, factor)


def floating(name: str, ours: Tensor, plain: Tensor, exact: Tensor, factor: float) -> Verdict:
    """The rule for one floating tensor."""
    ours64, plain64, exact64 = ours.double(), plain.double(), exact.double()
    told = plain64.isfinite() & exact64.isfinite()
    largest = float(exact64[told].abs().max()) if told.any() else 0.0
    unit = largest if largest > 0 else 1.0
    few = exact.numel() < FEW
    ulps = 2 if not few else (16 if factor <= 2 else 64)
    own = float((plain64 - exact64)[told].abs().max()) if told.any() else 0.0
    allowed = factor * own + ulps * torch.finfo(plain.dtype).eps * largest
    allowed = max(allowed, torch.finfo(plain.dtype).tiny)
    lost = ~plain64.isfinite() & ~exact64.isfinite()
    hidden = bool(ours64[lost].isfinite().any())
    return Verdict(
        name, float("inf") if hidden else _largest((ours64 - exact64)[told]) / unit, allowed / unit
    )


def _largest(errors: Tensor) -> float:
    """The largest error, infinite where one is not a number."""
    if errors.numel() == 0:
        return 0.0
    largest = float(errors.abs().max())
    return largest if largest < float("inf") else float("inf")
