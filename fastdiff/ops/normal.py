"""normal: standard normal numbers that depend on (seed, row, stream, element) alone; see `fastdiff.ops.philox`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import device, dispatch, extension, philox
from .arguments import check_exactly, check_tensor, check_whole, described, device_row
from .shape_classes import rounded

_OP = "normal"


def reference(
    *, seeds: Tensor, shape: tuple[int, ...], row: int | Tensor, stream: int, dtype: torch.dtype
) -> Tensor:
    """`normal` in plain torch."""
    flat = philox.normal(seeds, math.prod(shape), row=row, stream=stream, dtype=dtype)
    return flat.reshape(seeds.shape[0], *shape)


def _cpp(
    *, seeds: Tensor, shape: tuple[int, ...], row: int | Tensor, stream: int, dtype: torch.dtype
) -> Tensor:
    out = torch.empty(seeds.shape[0], *shape, dtype=dtype)
    rows, first = device_row(row)
    torch.ops.fastdiff.normal_cpp(out, seeds, rows, first, stream)
    return out


def _cpp_reasons(*, seeds: Tensor, dtype: torch.dtype, row: int | Tensor, **_: Any) -> list[str]:
    reasons = [] if dtype == torch.float32 else [f"dtype is {dtype}, it makes float32"]
    for name, value in (("seeds", seeds), ("row", row)):
        if isinstance(value, Tensor) and not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
    if not seeds.is_contiguous() or (isinstance(row, Tensor) and not row.is_contiguous()):
        reasons.append("seeds or row are not contiguous")
    return reasons


def _filled(name: str, inputs: Mapping[str, Any]) -> Tensor:
    seeds, row = inputs["seeds"], inputs["row"]
    out = torch.empty(seeds.shape[0], *inputs["shape"], dtype=torch.float32, device=seeds.device)
    rows, first = device_row(row)
    getattr(torch.ops.fastdiff, name)(out, seeds, rows, first, inputs["stream"])
    return out


def _triton(**inputs: Any) -> Tensor:
    from ..kernels import normal as _  # noqa: F401 (registers the op)

    return _filled("normal_triton", inputs)


def _cuda(**inputs: Any) -> Tensor:
    return _filled("normal_cuda", inputs)


def _not_float32(dtype: torch.dtype) -> list[str]:
    return [] if dtype == torch.float32 else [f"dtype is {dtype}, it makes float32"]


def _triton_reasons(**inputs: Any) -> list[str]:
    return _not_float32(inputs["dtype"]) + device.triton_reasons(inputs, "seeds", "row")


def _cuda_reasons(**inputs: Any) -> list[str]:
    return _not_float32(inputs["dtype"]) + device.cuda_reasons(inputs, "seeds", "row")


def _shape_class(*, shape: tuple[int, ...], dtype: torch.dtype, **_: Any) -> str:
    return f"{dtype} {rounded(math.prod(shape))}"


extension.register_fake("normal_cpp")
extension.register_fake("normal_cuda")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cuda", _cuda, _cuda_reasons, extension.CUDA_MISSING),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING, verifies=True, refuses=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def _check(inputs: Mapping[str, Any]) -> None:
    seeds, shape, row, dtype = (inputs[name] for name in ("seeds", "shape", "row", "dtype"))
    check_tensor(_OP, "seeds", seeds)
    if seeds.dtype != torch.int64 or seeds.dim() != 1:
        raise TypeError(f"{_OP}: seeds must be int64 (B,), got {described(seeds)}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{_OP}: dtype must be torch.float32 or torch.float64, got {dtype}")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        raise TypeError(f"{_OP}: shape must be whole numbers, got {shape!r}")
    if any(size < 0 for size in shape):
        raise ValueError(f"{_OP}: shape must not be negative, got {shape}")
    if isinstance(row, Tensor):
        check_exactly(_OP, "row", row, torch.int64, tuple(seeds.shape), seeds)
    else:
        check_whole(_OP, "row", row, 0, 2**32)


def normal(
    seeds: Tensor,
    shape: Sequence[int],
    *,
    row: int | Tensor = 0,
    stream: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers, the same for a seed whatever the batch, its order or the number of processes.

    Args:
        seeds: (B,) int64, the 64 bits of each sample's seed.
        shape: shape of one sample.
        row: row index in [0, 2**32), one for all or (B,) int64.
        stream: which noise, see `fastdiff.ops.philox.Stream`.
        dtype: float32, or float64 (torch backend).

    Returns:
        (B, *shape) on the device of seeds; |values| <= 5.77.

    Raises:
        TypeError: seeds are not an int64 tensor.
        ValueError: a shape or dtype does not fit.

    Source: Salmon et al., SC 2011 (Philox4x32-10) and Box and Muller 1958.
    """
    sizes = tuple(shape) if isinstance(shape, Sequence) else shape
    check_whole(_OP, "stream", stream, 0, 2**32)  # here: torch takes a dtype for a number, too
    inputs = {"seeds": seeds, "shape": sizes, "row": row, "stream": int(stream), "dtype": dtype}
    return dispatch.run(_OP, _BACKENDS, inputs, _check)
