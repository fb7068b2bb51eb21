"""add_noise: x_t = alpha * x0 + sigma * eps, the forward process of one batch with its own alpha, sigma per sample.

    eps = noise(FORWARD, row) + offset * noise(OFFSET, row)[channel]

where the offset (one number per sample and channel) is that of "offset noise". The noise is made inside from the
seeds, so that a loss can make it again instead of storing it. x0 (B, C, ...) is float32, float16 or bfloat16 in any
strides; x_t and eps are contiguous float32 (float64 for a float64 x0, torch backend only).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor

from . import device, dispatch, extension, philox
from .arguments import (
    FLOATS,
    check_exactly,
    check_flag,
    check_like,
    check_number,
    check_tensor,
    check_whole,
    check_written,
    described,
    device_row,
    overlap,
    wants_gradient,
)
from .shape_classes import of_maps

_OP = "add_noise"


def _state_dtype(x0: Tensor) -> torch.dtype:
    return torch.float64 if x0.dtype == torch.float64 else torch.float32


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


def reference(
    *,
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    seeds: Tensor | None,
    row: int | Tensor,
    noise: Tensor | None,
    offset: float,
    out: Tensor | None,
    noise_out: Tensor | None,
) -> Tensor:
    """`add_noise` in plain torch, in the dtype of the state."""
    dtype, rest = _state_dtype(x0), [1] * (x0.dim() - 2)
    count = x0[0].numel() if x0.shape[0] else 0
    if noise is not None:
        eps = noise.to(dtype)
    else:
        eps = philox.normal(_given(seeds), count, row=row, stream=philox.Stream.FORWARD, dtype=dtype).reshape(
            x0.shape
        )
    if offset:
        shift = philox.normal(_given(seeds), x0.shape[1], row=row, stream=philox.Stream.OFFSET, dtype=dtype)
        eps = eps + offset * shift.reshape(*shift.shape, *rest)
    alpha, sigma = _per_sample(alpha, x0), _per_sample(sigma, x0)
    signal = torch.where(alpha == 0, torch.zeros((), dtype=dtype, device=x0.device), alpha * x0.to(dtype))
    result = (signal + sigma * eps).contiguous()
    if noise_out is not None:
        noise_out.copy_(eps)
    return out.copy_(result) if out is not None else result


def _given(seeds: Tensor | None) -> Tensor:
    if seeds is None:
        raise ValueError(f"{_OP}: seeds must be given where noise is made, got None")
    return seeds


def _check(inputs: Mapping[str, Any]) -> None:
    x0, noise, row = inputs["x0"], inputs["noise"], inputs["row"]
    if x0.dim() < 2 or x0.dtype not in (*FLOATS, torch.float64):
        raise TypeError(
            f"{_OP}: x0 must be float32, float16, bfloat16 or float64 (B, C, ...), got {described(x0)}"
        )
    batch, dtype = (x0.shape[0],), _state_dtype(x0)
    for name in ("alpha", "sigma"):
        check_tensor(_OP, name, inputs[name])
        check_exactly(_OP, name, inputs[name], dtype, batch, x0)
    check_exactly(_OP, "seeds", inputs["seeds"], torch.int64, batch, x0)
    check_like(_OP, "noise", noise, x0)
    for name in ("out", "noise_out"):
        check_exactly(_OP, name, inputs[name], dtype, tuple(x0.shape), x0)
        check_written(_OP, name, inputs[name])
    if isinstance(row, Tensor):
        check_exactly(_OP, "row", row, torch.int64, batch, x0)
    else:
        check_whole(_OP, "row", row, 0, 2**32)
    if inputs["seeds"] is None and (noise is None or inputs["offset"]):
        raise ValueError(f"{_OP}: seeds must be given where noise or an offset is made, got None")
    if not torch.compiler.is_compiling():
        _check_aliases(inputs)


_READ = ("noise", "alpha", "sigma", "seeds", "row")


def _check_aliases(inputs: Mapping[str, Any]) -> None:
    out, x0 = inputs["out"], inputs["x0"]
    same = (
        out is not None
        and out.data_ptr() == x0.data_ptr()
        and out.stride() == x0.stride()
        and out.dtype == x0.dtype
    )
    pairs = [("out", "x0")] if not same else []
    pairs += [("noise_out", "x0"), ("out", "noise_out")]
    pairs += [(name, other) for name in ("out", "noise_out") for other in _READ]
    for name, other in pairs:
        both = isinstance(inputs[name], Tensor) and isinstance(inputs[other], Tensor)
        if both and overlap(inputs[name], inputs[other]):
            raise ValueError(f"{_OP}: {name} must not share memory with {other}, got overlapping tensors")


def _cpp_reasons(**inputs: Any) -> list[str]:
    x0, reasons = inputs["x0"], []
    for name, value in inputs.items():
        if isinstance(value, Tensor) and not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
    if x0.dtype == torch.float64:
        reasons.append("x0 is torch.float64, it computes in float32")
    for name in ("alpha", "sigma", "seeds", "row", "out", "noise_out"):
        if isinstance(inputs[name], Tensor) and not inputs[name].is_contiguous():
            reasons.append(f"{name} is not contiguous")
    if x0.dim() > 8:
        reasons.append(f"x0 has {x0.dim()} dimensions, it takes at most 8")
    if wants_gradient(*inputs.values()):
        reasons.append("a gradient is wanted, it has none")
    return reasons


def _cpp(
    *, x0: Tensor, row: int | Tensor, out: Tensor | None, noise_out: Tensor | None, **inputs: Any
) -> Tensor:
    out = torch.empty(x0.shape, dtype=torch.float32) if out is None else out
    rows, first = device_row(row)
    torch.ops.fastdiff.add_noise_cpp(out, noise_out, x0, rows=rows, row=first, **inputs)
    return out


def _written(name: str, inputs: Mapping[str, Any]) -> Tensor:
    rest = dict(inputs)
    x0, row, out, noise_out = (rest.pop(key) for key in ("x0", "row", "out", "noise_out"))
    out = torch.empty(x0.shape, dtype=torch.float32, device=x0.device) if out is None else out
    rows, first = device_row(row)
    getattr(torch.ops.fastdiff, name)(out, noise_out, x0, rows=rows, row=first, **rest)
    return out


def _triton(**inputs: Any) -> Tensor:
    from ..kernels import add_noise as _  # noqa: F401 (registers the op)

    return _written("add_noise_triton", inputs)


def _cuda(**inputs: Any) -> Tensor:
    return _written("add_noise_cuda", inputs)


_DENSE = ("alpha", "sigma", "seeds", "row", "out", "noise_out")


def _is_double(x0: Tensor) -> list[str]:
    return ["x0 is torch.float64, it computes in float32"] if x0.dtype == torch.float64 else []


def _triton_reasons(**inputs: Any) -> list[str]:
    return _is_double(inputs["x0"]) + device.triton_reasons(inputs, *_DENSE)


def _cuda_reasons(**inputs: Any) -> list[str]:
    return _is_double(inputs["x0"]) + device.cuda_reasons(inputs, *_DENSE)


def _shape_class(*, x0: Tensor, noise: Tensor | None, **_: Any) -> str:
    return of_maps(x0, noise=noise)


extension.register_fake("add_noise_cpp")
extension.register_fake("add_noise_cuda")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cuda", _cuda, _cuda_reasons, extension.CUDA_MISSING),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING, verifies=True, refuses=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


@overload
def add_noise(
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    seeds: Tensor | None = ...,
    row: int | Tensor = ...,
    noise: Tensor | None = ...,
    offset: float = ...,
    return_noise: Literal[False] = ...,
    out: Tensor | None = ...,
) -> Tensor: ...


@overload
def add_noise(
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    seeds: Tensor | None = ...,
    row: int | Tensor = ...,
    noise: Tensor | None = ...,
    offset: float = ...,
    return_noise: Literal[True],
    out: Tensor | None = ...,
) -> tuple[Tensor, Tensor]: ...


def add_noise(
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    *,
    seeds: Tensor | None = None,
    row: int | Tensor = 0,
    noise: Tensor | None = None,
    offset: float = 0.0,
    return_noise: bool = False,
    out: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Noise a batch: x_t = alpha * x0 + sigma * eps.

    Args:
        x0: (B, C, ...) clean data.
        alpha: (B,) float32 signal scale; where it is 0, x0 is not read.
        sigma: (B,) float32 noise scale.
        seeds: (B,) int64 seeds of the noise made inside.
        row: row index of the noise in [0, 2**32), one for all or (B,) int64.
        noise: (B, C, ...) noise to use instead of made noise.
        offset: strength of the offset noise, 0 for none (0.1 is usual).
        return_noise: return eps too.
        out: (B, C, ...) where to write x_t; may be x0 itself where that is dense float32.

    Returns:
        x_t (B, C, ...), or (x_t, eps).

    Raises:
        TypeError: x0 is not a floating-point tensor.
        ValueError: shapes, dtypes or devices do not fit, seeds are missing, or tensors overlap.

    Source: Ho et al. 2020, eq. 4; offset noise: Guttenberg 2023.
    """
    check_tensor(_OP, "x0", x0)
    check_number(_OP, "offset", offset)  # here: torch takes a tensor for a number, too
    check_flag(_OP, "return_noise", return_noise)
    noise_out = torch.empty(x0.shape, dtype=_state_dtype(x0), device=x0.device) if return_noise else None
    inputs = {
        **{"x0": x0, "alpha": alpha, "sigma": sigma, "seeds": seeds, "row": row, "noise": noise},
        **{"offset": offset, "out": out, "noise_out": noise_out},
    }
    result = dispatch.run(_OP, _BACKENDS, inputs, _check)
    return (result, noise_out) if noise_out is not None else result
