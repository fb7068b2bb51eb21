"""What every codebook is and returns, and how evenly codes are used."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Dtypes a codebook itself may have. Rows may also be half precision: they are compared in float32.
_CODES = (torch.float32, torch.float64)


class Quantised(NamedTuple):
    """Rows after quantisation.

    Attributes:
        quantised: (..., D) the codes, float32; its gradient goes on to the rows.
        indices: (...) int64 in [0, K); (..., S) for codebooks made of S codebooks.
        loss: what training adds to its loss, a scalar.
        perplexity: exp of the entropy of the codes used in these rows, in [1, K]; (S,) for S codebooks.
        usage: share of the K codes that some row got, in [0, 1]; (S,) for S codebooks.
    """

    quantised: Tensor
    indices: Tensor
    loss: Tensor
    perplexity: Tensor
    usage: Tensor


def perplexity(counts: Tensor) -> Tensor:
    """exp(-sum_k p_k log p_k) of counts (K,): 1 when one code takes all rows, K when all share alike."""
    total = counts.sum().clamp(min=1)
    return torch.special.entr(counts.float() / total).sum().exp()


def usage(counts: Tensor) -> Tensor:
    """The share of codes with a count (K,) above 0."""
    return (counts > 0).float().mean()


class Quantiser(nn.Module):
    """What all codebooks are.

    Attributes:
        num_codes: K.
        dim: D.
    """

    num_codes: int
    dim: int

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to their codes."""
        raise NotImplementedError

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes (..., D) of indices."""
        raise NotImplementedError

    def check_rows(self, z: Tensor) -> None:
        """Refuse rows of another width or kind.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: the last dimension of z is not D.
        """
        if not (isinstance(z, Tensor) and z.is_floating_point()):
            raise TypeError(f"{type(self).__name__}: z must be a floating tensor, got {_described(z)}")
        fits = z.dim() >= 1 and z.shape[-1] == self.dim
        check(self, fits, "z", f"be (..., {self.dim}), channels last", tuple(z.shape))

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"num_codes={self.num_codes}, dim={self.dim}"


class CodeTable(Quantiser):
    """A codebook with a table `weight` (K, D) of codes.

    Args:
        num_codes: K >= 1.
        dim: D >= 1.
    """

    weight: Tensor

    def __init__(self, num_codes: int, dim: int) -> None:
        super().__init__()
        for name, value in (("num_codes", num_codes), ("dim", dim)):
            check(self, isinstance(value, int) and value >= 1, name, "be an integer >= 1", value)
        self.num_codes, self.dim = num_codes, dim

    def initial(self) -> Tensor:
        """First codes, uniform in (-1/K, 1/K), from torch's generator."""
        return torch.empty(self.num_codes, self.dim).uniform_(-1 / self.num_codes, 1 / self.num_codes)

    def codes(self) -> Tensor:
        """(K, D): the codes rows are compared with."""
        return self.weight

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes (..., D) of indices (...).

        Raises:
            ValueError: for indices outside [0, K) (on the CPU), or that are not integers.
        """
        check_indices(self, indices, self.num_codes)
        return functional.embedding(indices, self.codes())

    def distances(self, z: Tensor) -> Tensor:
        """Squared distances (..., K) of rows z (..., D) to all codes, float32, with gradients to both.

        This is the matrix that the search avoids; soft assignments need it.
        """
        self.check_rows(z)
        with full_precision(z):
            rows, codes = in_full(z), self.codes()
            if rows.dtype != codes.dtype:
                raise ValueError(
                    f"{type(self).__name__}: z must be {codes.dtype} as the codes or half, got {z.dtype}"
                )
            cross = rows @ codes.T
            return (rows.square().sum(-1, keepdim=True) - 2 * cross + codes.square().sum(1)).clamp(min=0)

    def mixture(self, weights: Tensor) -> Tensor:
        """The sums (..., D) of all codes with weights (..., K), float32."""
        with full_precision(weights):
            return in_full(weights) @ self.codes()

    def check_rows(self, z: Tensor) -> None:
        """Refuse rows of another width or kind, and a codebook in half precision.

        Raises:
            TypeError: z is not a floating-point tensor, or the codebook has been cast to half precision.
            ValueError: the last dimension of z is not D.
        """
        super().check_rows(z)
        if self.codes().dtype not in _CODES:
            raise TypeError(
                f"{type(self).__name__}: the codebook must stay float32 (rows may be half precision), "
                f"got {self.codes().dtype}"
            )


def in_full(z: Tensor) -> Tensor:
    """z as float32, or as it is when it is float64."""
    return z if z.dtype == torch.float64 else z.float()


def full_precision(z: Tensor) -> torch.autocast:
    """Context in which autocast does not reach the arithmetic on the device of z."""
    return torch.autocast(z.device.type, enabled=False)


def check_indices(owner: nn.Module, indices: Tensor, codes: int) -> None:
    """Refuse what is not an integer tensor with values in [0, codes); values are looked at on the CPU only."""
    kind = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
    check(owner, kind in (torch.int64, torch.int32), "indices", "be an int64 or int32 tensor", kind)
    if indices.is_cpu and indices.numel() and not torch.compiler.is_compiling():
        low, high = (int(v) for v in indices.aminmax())
        check(owner, 0 <= low and high < codes, "indices", f"lie in [0, {codes})", f"{low} ... {high}")


def check(owner: nn.Module, holds: bool, name: str, what: str, got: object) -> None:
    """Raise the ValueError of a wrong argument of `owner` unless `holds`."""
    if not holds:
        raise ValueError(f"{type(owner).__name__}: {name} must {what}, got {got!r}")


def _described(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
