"""vq_nearest: the nearest code of each row, argmin_k |z - e_k|^2, without the matrix of all distances.

    index_n = argmin_k (1/2 |e_k|^2 - z_n.e_k)        quantised_n = e_index_n        distance_n = |z_n - quantised_n|^2

z is (..., D), the codebook (K, D); both float32, float16 or bfloat16 in any strides, computed in float32 (float64 on
the torch backend only, for tests). Of equally near codes the lowest index is taken. A distance that is not a number
is never the smallest: a code with NaN is never chosen, and a row with NaN, for which there is no nearest code, gets
index 0 and the distance NaN. So it is with squares that do not fit float32 (values from about 1e18 on): such a code
is never the nearest, and the distance of such a row is infinite or NaN. No gradient passes; a straight-through
estimator is the caller's. The commitment loss (the mean of (z - quantised)^2) is ``distance.mean() / D``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import device, dispatch, extension
from .arguments import FLOATS, check_flag, check_tensor, described
from .shape_classes import of_rows

_OP = "vq_nearest"
#: The reference holds at most this many distances at a time.
_CHUNK_ELEMENTS = 2**20


class Nearest(NamedTuple):
    """What `vq_nearest` found; None for what was not asked for.

    Attributes:
        indices: (...) int64, the nearest code of each row.
        quantised: (..., D) of the codebook's dtype, that code.
        distance: (...) float32, the squared distance to it.
        counts: (K,) int64, how many rows each code got.
    """

    indices: Tensor
    quantised: Tensor | None = None
    distance: Tensor | None = None
    counts: Tensor | None = None


def _search(z: Tensor, codebook: Tensor) -> Tensor:
    """Indices of the nearest codes of the rows z (N, D), a chunk of rows at a time."""
    half_norms = 0.5 * codebook.square().sum(1)
    codes = torch.arange(codebook.shape[0], device=z.device)
    index = torch.empty(z.shape[0], dtype=torch.int64, device=z.device)
    step = max(1, _CHUNK_ELEMENTS // codebook.shape[0])
    for start in range(0, z.shape[0], step):
        score = torch.addmm(half_norms, z[start : start + step], codebook.T, alpha=-1.0)
        score = torch.where(score.isnan(), torch.inf, score)
        nearest = score == score.amin(1, keepdim=True)
        index[start : start + step] = torch.where(nearest & (score < torch.inf), codes, codes.numel()).amin(1)
    return torch.where(index == codes.numel(), 0, index)


def reference(
    *, z: Tensor, codebook: Tensor, return_quantised: bool, return_distance: bool, return_counts: bool
) -> Nearest:
    """`vq_nearest` in plain torch, in float32 (float64 for float64 inputs)."""
    dtype = z.dtype if z.dtype == torch.float64 else torch.float32
    rows, codes = z.reshape(-1, z.shape[-1]).to(dtype), codebook.to(dtype)
    index = _search(rows, codes)
    return Nearest(
        index.reshape(z.shape[:-1]),
        codebook[index].reshape(z.shape) if return_quantised else None,
        (rows - codes[index]).square().sum(1).reshape(z.shape[:-1]) if return_distance else None,
        _counts(index, codebook.shape[0]) if return_counts else None,
    )


def _counts(index: Tensor, codes: int) -> Tensor:
    zeros = torch.zeros(codes, dtype=torch.int64, device=index.device)
    return zeros.scatter_add_(0, index, torch.ones_like(index))


def _check(inputs: Mapping[str, Any]) -> None:
    z, codebook = inputs["z"], inputs["codebook"]
    for name, value in (("z", z), ("codebook", codebook)):
        check_tensor(_OP, name, value)
        if value.dtype not in (*FLOATS, torch.float64):
            raise TypeError(f"{_OP}: {name} must be float32, float16 or bfloat16, got {described(value)}")
    if codebook.dim() != 2 or 0 in codebook.shape:
        raise ValueError(f"{_OP}: codebook must be (K, D), neither of them 0, got {described(codebook)}")
    if z.dim() < 1 or z.shape[-1] != codebook.shape[1] or z.device != codebook.device:
        expected = f"(..., {codebook.shape[1]}) on {codebook.device}"
        raise ValueError(f"{_OP}: z must be {expected} like the codebook, got {described(z)}")
    if (z.dtype == torch.float64) != (codebook.dtype == torch.float64):
        raise ValueError(f"{_OP}: codebook must be float64 where z is, got {codebook.dtype} and {z.dtype}")


def _cpp_reasons(*, z: Tensor, codebook: Tensor, **_: bool) -> list[str]:
    reasons = []
    for name, value in (("z", z), ("codebook", codebook)):
        if not value.is_cpu:
            reasons.append(f"{name} is on {value.device}, it runs on the CPU")
        if value.dtype == torch.float64:
            reasons.append(f"{name} is torch.float64, it computes in float32")
    if z.dim() > 8:
        reasons.append(f"z has {z.dim()} dimensions, it takes at most 8")
    return reasons


def _triton_reasons(*, z: Tensor, codebook: Tensor, **_: bool) -> list[str]:
    inputs = {"z": z, "codebook": codebook}
    wide = [name for name, value in inputs.items() if value.dtype == torch.float64]
    return device.triton_reasons(inputs) + [f"{n} is torch.float64, it computes in float32" for n in wide]


def _cuda_reasons(*, z: Tensor, codebook: Tensor, **_: bool) -> list[str]:
    inputs = {"z": z, "codebook": codebook}
    wide = [name for name, value in inputs.items() if value.dtype == torch.float64]
    return device.cuda_reasons(inputs) + [f"{n} is torch.float64, it computes in float32" for n in wide]


def pivot_of(z: Tensor, codebook: Tensor) -> Tensor | None:
    """What kernels take from rows and codes, so that data far from 0 keeps its digits; (D,) float32.

    Near the mean of the codes that are numbers; None where both are of half precision and products are exact. A
    multiple of a power of two that no code is farther from the mean than: 0 for codes around 0, and whole numbers
    stay whole, so that equal distances stay equal.
    """
    if z.dtype != torch.float32 and codebook.dtype != torch.float32:
        return None
    codes = codebook.float()
    codes = torch.where(codes.isfinite(), codes, 0.0)
    mean = codes.mean(0)
    _, exponent = torch.frexp((codes - mean).abs().amax(0))
    spread = torch.ldexp(torch.ones_like(mean), exponent)
    pivot = torch.round(mean / spread) * spread
    return torch.where(pivot.isfinite(), pivot, 0.0)


def _found(
    name: str,
    z: Tensor,
    codebook: Tensor,
    return_quantised: bool,
    return_distance: bool,
    return_counts: bool,
    *,
    pivoted: bool = False,
) -> Nearest:
    where = z.device
    found = Nearest(
        torch.empty(z.shape[:-1], dtype=torch.int64, device=where),
        torch.empty(z.shape, dtype=codebook.dtype, device=where) if return_quantised else None,
        torch.empty(z.shape[:-1], dtype=torch.float32, device=where) if return_distance else None,
        torch.empty(codebook.shape[0], dtype=torch.int64, device=where) if return_counts else None,
    )
    pivot = (pivot_of(z, codebook),) if pivoted else ()
    getattr(torch.ops.fastdiff, name).default(*found, z, codebook, *pivot)
    return found


def _cpp(**inputs: Any) -> Nearest:
    return _found("vq_nearest_cpp", **inputs)


def _triton(**inputs: Any) -> Nearest:
    from ..kernels import vq_nearest  # noqa: F401 (registers the op)

    return _found("vq_nearest_triton", **inputs, pivoted=True)


def _cuda(**inputs: Any) -> Nearest:
    return _found("vq_nearest_cuda", **inputs, pivoted=True)


def _shape_class(*, z: Tensor, codebook: Tensor, **_: Any) -> str:
    return of_rows(z, codebook.shape[0])


for _name in ("vq_nearest_cpp", "vq_nearest_cuda"):
    extension.register_fake(_name)
_BACKENDS = dispatch.register(
    _OP,
    # Triton first: it multiplies on tensor cores, the CUDA kernel does not.
    dispatch.Backend("triton", _triton, _triton_reasons, device.WITHOUT_TRITON),
    dispatch.Backend("cuda", _cuda, _cuda_reasons, extension.CUDA_MISSING),
    dispatch.Backend("cpp", _cpp, _cpp_reasons, extension.MISSING, verifies=True),
    dispatch.Backend("torch", reference, lambda **_: []),
    shape_class=_shape_class,
)


def vq_nearest(
    z: Tensor,
    codebook: Tensor,
    *,
    return_quantised: bool = False,
    return_distance: bool = False,
    return_counts: bool = False,
) -> Nearest:
    """Find the nearest code of each row.

    Args:
        z: (..., D) rows, float32, float16 or bfloat16 in any strides, channels last.
        codebook: (K, D) codes, likewise.
        return_quantised: return the codes found, too.
        return_distance: return the squared distances to them, too.
        return_counts: return how many rows each code got, too.

    Returns:
        (indices, quantised, distance, counts), see `Nearest`. None of them carries a gradient.

    Raises:
        TypeError: z or the codebook is not a floating-point tensor.
        ValueError: shapes, dtypes or devices do not fit, or the codebook is empty.

    Source: van den Oord et al. 2017, eq. 1-2.
    """
    inputs = {
        **{"z": _detached(z), "codebook": _detached(codebook), "return_quantised": return_quantised},
        **{"return_distance": return_distance, "return_counts": return_counts},
    }
    for name in (
        "return_quantised",
        "return_distance",
        "return_counts",
    ):  # here: the kernels would take them for true
        check_flag(_OP, name, inputs[name])
    return dispatch.run(_OP, _BACKENDS, inputs, _check)


def _detached(value: Tensor) -> Tensor:
    return value.detach() if isinstance(value, Tensor) and value.requires_grad else value
