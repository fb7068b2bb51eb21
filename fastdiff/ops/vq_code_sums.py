"""vq_code_sums: the sum of the rows of each code and their number, for codebooks that follow a moving average.

    sums_k = sum of z_n over all n with index_n = k        counts_k = how many those are

z is (..., D) float32, float16 or bfloat16 in any strides, summed in float32 (float64 on the torch backend only, for
tests). The rows are ordered by code first and each code is summed in the order of its rows, so the result depends on
neither threads nor chance; nothing is added atomically. The torch backend is deterministic on other devices under
`torch.use_deterministic_algorithms`. On a device nobody looks at the index: what is outside [0, K) counts nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import device, dispatch, extension
from .arguments import FLOATS, check_exactly, check_tensor, described

_OP = "vq_code_sums"


class CodeSums(NamedTuple):
    """Sums (K, D) float32 and counts (K,) int64 of the rows of each code."""

    sums: Tensor
    counts: Tensor


def reference(*, z: Tensor, index: Tensor, codes: int) -> CodeSums:
    """`vq_code_sums` in plain torch."""
    dtype = z.dtype if z.dtype == torch.float64 else torch.float32
    rows, flat = z.reshape(index.numel(), z.shape[-1]).to(dtype), index.reshape(-1)
    sums = torch.zeros(codes, z.shape[-1], dtype=dtype, device=z.device).index_add_(0, flat, rows)
    counts = torch.zeros(codes, dtype=torch.int64, device=z.device)
    return CodeSums(sums, counts.scatter_add_(0, flat, torch.ones_like(flat)))


def _check(inputs: Mapping[str, Any]) -> None:
    z, index, codes = inputs["z"], inputs["index"], inputs["codes"]
    check_tensor(_OP, "z", z)
    if z.dim() < 1 or z.dtype not in (*FLOATS, torch.float64):
        raise TypeError(f"{_OP}: z must be float32, float16 or bfloat16 (..., D), got {described(z)}")
    if not isinstance(codes, int) or isinstance(codes, bool) or not 1 <= codes < 2**31:
        raise ValueError(f"{_OP}: codes must be a whole number of at least 1 and below 2**31, got {codes!r}")
    check_tensor(_OP, "index", index)
    check_exactly(_OP, "index", index, torch.int64, tuple(z.shape[:-1]), z)
    if not torch.compiler.is_compiling() and index.is_cpu and index.numel():
        low, high = (int(value) for value in index.aminmax())
        if low < 0 or high >= codes:
            raise ValueError(f"{_OP}: index must be in [0, {codes}), got values from {low} to {high}")


def _cpp_reasons(*, z: Tensor, index: Tensor, **_: int) -> list[str]:
    reasons = []
    for name, value in (("z", z), ("index", index)):
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
    if z.dtype == torch.float64:
        reasons.append("z is torch.float64, it computes in float32")
    if z.dim() > 8:
        reasons.append(f"z has {z.dim()} dimensions, it takes at most 8")
    return reasons


def _cpp(*, z: Tensor, index: Tensor, codes: int) -> CodeSums:
    result = CodeSums(torch.empty(codes, z.shape[-1]), torch.empty(codes, dtype=torch.int64))
    torch.ops.fastdiff.vq_code_sums_cpp.default(*result, z, index.contiguous())
    return result


def _triton_reasons(*, z: Tensor, index: Tensor, **_: int) -> list[str]:
    wide = ["z is torch.float64, it computes in float32"] if z.dtype == torch.float64 else []
    return device.triton_reasons({"z": z, "index": index}) + wide


def _triton(*, z: Tensor, index: Tensor, codes: int) -> CodeSums:
    from ..kernels import vq_code_sums  # noqa: F401 (registers the op)

    sums = torch.empty(codes, z.shape[-1], dtype=torch.float32, device=z.device)
    result = CodeSums(sums, torch.empty(codes, dtype=torch.int64, device=z.device))
    torch.ops.fastdiff.vq_code_sums_triton.default(*result, z, index)
    return result


extension.register_fake("vq_code_sums_cpp")
_BACKENDS = dispatch.register(
    _OP,
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING),
    dispatch.Backend("torch", reference, lambda **_: []),
)  # without a class: where torch's sums by atomics are faster, they still depend on chance


def vq_code_sums(z: Tensor, index: Tensor, codes: int) -> CodeSums:
    """Add up the rows of each code.

    Args:
        z: (..., D) rows, float32, float16 or bfloat16 in any strides, channels last.
        index: (...) int64, the code of each row, in [0, codes).
        codes: K, how many codes there are.

    Returns:
        (sums, counts): (K, D) float32 and (K,) int64, 0 for a code without rows. They carry no gradient.

    Raises:
        TypeError: z is not a floating-point tensor, or index is not a tensor.
        ValueError: a shape, dtype, device or index does not fit.

    Source: van den Oord et al. 2017, appendix A.1 (the terms of its moving averages).
    """
    z = z.detach() if isinstance(z, Tensor) else z
    return dispatch.run(_OP, _BACKENDS, {"z": z, "index": index, "codes": codes}, _check)
