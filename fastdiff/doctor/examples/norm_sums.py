"""Sums around a normalisation: the examples of them for `group_norm_silu` and `rms_norm_silu`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from . import Arguments, Example, normals, product

#: What is given beside x, by what it is in a network.
SUMS: dict[str, tuple[str, ...]] = {
    "an embedding before": ("add",),
    "a residual before, the sum returned": ("add", "residual", "residual_add", "with_sum"),
    "a second map behind": ("add", "x2", "last"),
    "a residual after": ("add", "residual", "residual_add", "after"),
}
#: Channels of the second map: few enough that a group reaches across the place where it begins.
SECOND = 8
_FLAGS = dict.fromkeys(("after", "with_sum", "last"), True)
#: (shape, dtype, channels last) -> arguments of the normalisation without sums
Norm = Callable[[tuple[int, ...], torch.dtype, bool], Arguments]


def with_sums(norm: Norm, shape: tuple[int, ...]) -> Iterator[Example]:
    """Every sum in every floating type and in both orders of memory.

    Args:
        norm: gives the arguments without sums.
        shape: (B, C, H, W) of x.
    """
    for size, dtype, name in product([shape]):
        for last in (False, True):
            for told, names in SUMS.items():
                make = partial(_arguments, norm, size, dtype, last, names)
                named = f"{name} {'NHWC' if last else 'NCHW'}, {told}"
                yield Example(named, make, gradients=_gradients(names))


def _arguments(
    norm: Norm, shape: tuple[int, ...], dtype: torch.dtype, last: bool, names: tuple[str, ...]
) -> Arguments:
    """Factors are as wide as what is normalised; an embedding is of the type of x, a bias of float32."""
    x = norm(shape, dtype, last)["x"]
    batch, channels, height, width = shape
    second = (batch, SECOND, height, width)
    given: Arguments = {
        "add": normals(20, batch, channels).to(dtype),
        "residual": _map(21, shape, dtype, last),
        "residual_add": normals(22, channels),
        "x2": _map(23, second, dtype, last),
        **_FLAGS,
    }
    whole = (batch, channels + SECOND, height, width) if "x2" in names else shape
    return norm(whole, dtype, last) | {"x": x} | {name: given[name] for name in names}


def _map(seed: int, shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> Tensor:
    order = torch.channels_last if last else torch.contiguous_format
    return normals(seed, *shape).to(dtype).contiguous(memory_format=order)


def _gradients(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of every tensor that a sum brings, where one result alone has a gradient."""
    return () if "with_sum" in names else ("x", "weight", *(name for name in names if name not in _FLAGS))
