"""Sums around a normalisation, computed in the same pass over the map.

    s = [x + add + residual + residual_add, x2]    joined over channels; rounded to the type of x
    y = norm(s) ...                                and then + residual + residual_add, where they are `after` the norm

x, residual are (B, C1, ...), x2 (B, C2, ...), add and residual_add (B, C1) or (C1,): a time embedding, the bias of the
convolution that made x, and that of the one that made the residual. Each may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from . import device, dispatch
from .arguments import FLOATS, check_flag, check_tensor, described
from .feature_maps import dense

#: y, or (y, s).
Result: TypeAlias = Tensor | tuple[Tensor, Tensor]
#: The arguments of a normalisation that this file is about.
NAMES = ("add", "residual", "residual_add", "x2", "after", "with_sum", "last")


class Sums(NamedTuple):
    """What is added and joined.

    Attributes:
        add: (B, C1) or (C1,), or None.
        residual: (B, C1, ...) or None.
        residual_add: (B, C1) or (C1,), or None.
        x2: (B, C2, ...) or None.
        after: residual and residual_add are added to the result.
    """

    add: Tensor | None = None
    residual: Tensor | None = None
    residual_add: Tensor | None = None
    x2: Tensor | None = None
    after: bool = False

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Sums:
        """Those among the inputs of a normalisation."""
        return cls(**{name: inputs.get(name, default) for name, default in cls._field_defaults.items()})

    def before_norm(self, x: Tensor) -> Tensor:
        """s in plain torch, added up in float32 or wider and rounded once to the type of x."""
        total = x.float() if x.dtype in FLOATS else x
        terms = (rows_of(self.add, x), *((None, None) if self.after else self._residuals(x)))
        for term in terms:
            total = total if term is None else total + term.to(total.dtype)
        total = total.to(x.dtype)
        return total if self.x2 is None else torch.cat([total, self.x2], dim=1)

    def after_norm(self, y: Tensor) -> Tensor:
        """y, and what is added to it, in the type of y."""
        for term in self._residuals(y) if self.after else ():
            y = y if term is None else y + term.to(y.dtype)
        return y

    def _residuals(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return self.residual, rows_of(self.residual_add, x)


def rows_of(rows: Tensor | None, x: Tensor) -> Tensor | None:
    """Rows (B, C) or (C,) of channels as a tensor that adds to x (B, C, ...)."""
    return None if rows is None else rows.reshape(*rows.shape, *[1] * (x.dim() - 2))


def whole_map(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs with x as a tensor of the shape of s, for the checks of a normalisation; nothing is computed."""
    x, x2 = inputs["x"], inputs["x2"]
    if x2 is None:
        return inputs
    shape = (x.shape[0], x.shape[1] + x2.shape[1], *x.shape[2:])
    return {**inputs, "x": x.new_empty(1).expand(shape)}


def check_sums(op: str, inputs: Mapping[str, Any]) -> None:
    """Errors in words unless add, residual, residual_add and x2 fit x (B, C, ...)."""
    x = inputs["x"]
    check_tensor(op, "x", x)
    for name in ("after", "with_sum", "last"):
        check_flag(op, name, inputs[name])
    shapes = {"add": (x.shape[1:2], x.shape[:2]), "residual_add": (x.shape[1:2], x.shape[:2])}
    for name, allowed in {**shapes, "residual": (x.shape,)}.items():
        value = inputs[name]
        if value is None:
            continue
        check_tensor(op, name, value)
        fits = value.shape in allowed and value.device == x.device and value.dtype in (*FLOATS, x.dtype)
        if not fits:
            wanted = " or ".join(str(tuple(shape)) for shape in allowed)
            raise ValueError(f"{op}: {name} must be floating {wanted} on {x.device}, got {described(value)}")
    x2 = inputs["x2"]
    if x2 is not None:
        check_tensor(op, "x2", x2)
        alike = x2.dim() == x.dim() and (x2.shape[:1], x2.shape[2:]) == (x.shape[:1], x.shape[2:])
        if not alike or x2.shape[1] < 1 or (x2.dtype, x2.device) != (x.dtype, x.device):
            wanted = f"{x.dtype} with the sizes of x {tuple(x.shape)} but for the channels, on {x.device}"
            raise ValueError(f"{op}: x2 must be {wanted}, got {described(x2)}")
    if inputs["after"] and (x2 is not None or inputs["residual"] is None):
        raise ValueError(f"{op}: after must be False without a residual or with x2, got True")
    before = ("add", "x2") if inputs["after"] else ("add", "x2", "residual", "residual_add")
    if inputs["with_sum"] and all(inputs[name] is None for name in before):
        raise ValueError(f"{op}: with_sum must be False where nothing is added before the norm, got True")


def composed(norm: Callable[..., Tensor], inputs: Mapping[str, Any]) -> Result:
    """A normalisation of one map with the sums around it in plain torch: the reference, and what has a gradient."""
    sums = Sums.of(inputs)
    given = {name: value for name, value in inputs.items() if name not in NAMES and name != "x"}
    s = sums.before_norm(inputs["x"])
    y = laid_out(sums.after_norm(norm(x=s, **given)), inputs["last"])
    return (y, s) if inputs["with_sum"] else y


def backends(
    reference: Callable[..., Tensor],
    triton: Callable[..., Result],
    triton_reasons: Callable[..., list[str]],
    *others: tuple[str, str],
) -> tuple[dispatch.Backend, ...]:
    """What can run a normalisation with sums: Triton, or the reference.

    Args:
        reference: of one map, in plain torch.
        triton: on every input by name.
        triton_reasons: why it cannot run these inputs.
        others: backends of the normalisation that take no sums, and what they miss here.
    """

    def refused(**_: Any) -> list[str]:
        return ["it takes no sums around the norm"]

    refusing = [dispatch.Backend(name, reference, refused, missing) for name, missing in others]
    return (
        dispatch.Backend("triton", triton, triton_reasons, device.WITHOUT_TRITON),
        *refusing,
        dispatch.Backend("torch", lambda **inputs: composed(reference, inputs), lambda **_: []),
    )


def around(
    add: Tensor | None,
    residual: Tensor | None,
    residual_add: Tensor | None,
    x2: Tensor | None,
    after: bool,
    with_sum: bool,
    last: bool,
) -> dict[str, Any]:
    """The arguments that this file is about by name; empty where a call has none of them."""
    nothing = add is None and residual is None and residual_add is None and x2 is None
    if nothing and not (after or with_sum or last):
        return {}
    return dict(zip(NAMES, (add, residual, residual_add, x2, after, with_sum, last), strict=True))


def read_by_kernels(
    x: Tensor, with_sum: bool, last: bool, given: Mapping[str, Any], *names: str
) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, ...]]:
    """(y, s, (x, add, residual, residual_add, x2 and the factors of these names)) for a kernel; nothing is cast.

    y, and s where it is wanted, are memory without values; maps are dense, and rows have no gaps.
    """
    x, sums = dense(x), Sums.of(given)
    rows, maps = factors(sums.add, sums.residual_add), (sums.residual, sums.x2)
    residual, x2 = (None if m is None else dense(m) for m in maps)
    y = empty_map(x, x2, last)
    s = empty_map(x, x2, False) if with_sum else None
    return y, s, (x, rows[0], residual, rows[1], x2, *factors(*(given[name] for name in names)))


def factors(*given: Tensor | None) -> tuple[Tensor | None, ...]:
    """Factors (C,) or (B, C) without gaps in their rows; a kernel casts them itself."""
    return tuple(f if f is None or f.stride(-1) == 1 else f.contiguous() for f in given)


def empty_map(x: Tensor, x2: Tensor | None, last: bool) -> Tensor:
    """A map for y or s without values: in the order of x, which is dense, or with its channels `last`."""
    channels = x.shape[1] + (0 if x2 is None else x2.shape[1])
    size, order = (x.shape[0], channels, *x.shape[2:]), torch.contiguous_format
    if x.dim() in _LAST and (last or not x.is_contiguous()):
        order = _LAST[x.dim()]
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)


_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(y: Tensor, last: bool) -> Tensor:
    """y with its channels last in memory, where that is asked for and there are two or three dimensions of pixels."""
    return y.contiguous(memory_format=_LAST[y.dim()]) if last and y.dim() in _LAST else y
