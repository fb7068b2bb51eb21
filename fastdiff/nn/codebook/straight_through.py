"""The nearest codes of rows, with the gradients that training wants; and the bare straight-through estimator."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastdiff.nn.codebook.quantised import in_full
from fastdiff.ops import vq_code_sums, vq_nearest

_All = tuple[Tensor, Tensor, Tensor, Tensor]


class Searched(NamedTuple):
    """Rows matched with codes.

    Attributes:
        quantised: (..., D) the codes; the gradient goes to z unchanged.
        codebook_loss: mean of (sg(z) - e)^2, with a gradient to the codebook.
        commitment_loss: the same number, mean of (z - sg(e))^2, with a gradient to z.
        indices: (...) int64.
        counts: (K,) int64.
    """

    quantised: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    indices: Tensor
    counts: Tensor


class _Search(torch.autograd.Function):
    """One pass forward; backward sums (z - e) by code instead of scattering atomically."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
        everything = {"return_quantised": True, "return_distance": True, "return_counts": True}
        indices, quantised, distance, counts = cast(_All, vq_nearest(z, codebook, **everything))
        ctx.save_for_backward(z, quantised, indices)
        ctx.codes = codebook.shape[0]
        ctx.mark_non_differentiable(indices, counts)
        ctx.set_materialize_grads(False)
        mean = distance.sum() / max(z.numel(), 1)
        return quantised, mean, mean.clone(), indices, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        to_codes, of_codebook, of_commitment = grads[:3]
        z, quantised, indices = ctx.saved_tensors
        gap = (in_full(z) - quantised) * (2 / max(z.numel(), 1))
        to_z, to_codebook = to_codes, None
        if of_commitment is not None and ctx.needs_input_grad[0]:
            pull = gap * of_commitment
            to_z = pull if to_codes is None else to_codes + pull
        if of_codebook is not None and ctx.needs_input_grad[1]:
            to_codebook = vq_code_sums(gap, indices, ctx.codes).sums * -of_codebook
        return None if to_z is None else to_z.to(z.dtype), to_codebook


def search(z: Tensor, codebook: Tensor) -> Searched:
    """The nearest codes of rows.

    Args:
        z: (..., D) rows, float32, float16 or bfloat16 in any strides.
        codebook: (K, D) float32.

    Returns:
        See `Searched`. Without rows the losses are 0.

    Source: van den Oord et al. 2017, eq. 3.
    """
    return Searched(*_Search.apply(z, codebook))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, codes: Tensor) -> Tensor:
        ctx.dtype = z.dtype
        return codes.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """`codes`, bit for bit, whose gradient goes to `z` of the same shape as if they were z (Bengio et al. 2013)."""
    return _StraightThrough.apply(z, codes)
