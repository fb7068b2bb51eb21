"""Residual quantisation: each codebook quantises what the ones before it left over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastdiff.nn.codebook.classic import Codebook
from fastdiff.nn.codebook.ema import EMACodebook
from fastdiff.nn.codebook.quantised import Quantised, Quantiser, check, check_indices, in_full
from fastdiff.nn.codebook.straight_through import straight_through

_KINDS = {"classic": Codebook, "ema": EMACodebook}


def several(owner: nn.Module, count: int, name: str, flavor: str, num_codes: int, dim: int) -> nn.ModuleList:
    """`count` codebooks of `num_codes` codes of width `dim`, "classic" or "ema".

    Raises:
        ValueError: for a count below 1 or another flavor.
    """
    check(owner, isinstance(count, int) and count >= 1, name, "be an integer >= 1", count)
    check(owner, flavor in _KINDS, "flavor", f"be one of {', '.join(_KINDS)}", flavor)
    return nn.ModuleList(_KINDS[flavor](num_codes, dim) for _ in range(count))


class ResidualCodebook(Quantiser):
    """z is quantised as a sum of S codes, one of each codebook; indices are (..., S).

    The gradient of the sum goes to z once, and the losses of all stages are added.

    Args:
        num_codes: K of each stage.
        dim: D.
        stages: S.
        flavor: "ema" or "classic".

    Source: Zeghidour et al. 2021 (SoundStream), algorithm 1.
    """

    def __init__(self, num_codes: int, dim: int, *, stages: int = 2, flavor: str = "ema") -> None:
        super().__init__()
        self.stages = several(self, stages, "stages", flavor, num_codes, dim)
        self.num_codes, self.dim = num_codes, dim

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to sums of codes.

        Raises:
            TypeError: z is not floating, or a codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        rest, results = in_full(z), []
        for stage in self.stages:
            results.append(stage(rest))
            rest = rest - results[-1].quantised.detach()
        total = sum_of([result.quantised.detach() for result in results])
        return gathered(straight_through(z, total), results)

    def lookup(self, indices: Tensor) -> Tensor:
        """The sums of codes (..., D) of indices (..., S).

        Raises:
            ValueError: for another number of stages, or indices outside [0, K).
        """
        check_parts(self, indices, len(self.stages), self.num_codes)
        return sum_of([stage.lookup(indices[..., i]) for i, stage in enumerate(self.stages)])  # type: ignore


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum, always in the order of the list, so that equal parts give equal bits."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def gathered(quantised: Tensor, results: list[Quantised]) -> Quantised:
    """Indices, perplexities and usages of several codebooks side by side, losses added."""
    return Quantised(
        quantised,
        torch.stack([r.indices for r in results], -1),
        torch.stack([r.loss for r in results]).sum(),
        torch.stack([r.perplexity for r in results]),
        torch.stack([r.usage for r in results]),
    )


def check_parts(owner: nn.Module, indices: Tensor, parts: int, codes: int) -> None:
    """Refuse indices that are not (..., parts) integers in [0, codes)."""
    check_indices(owner, indices, codes)
    fits = indices.dim() >= 1 and indices.shape[-1] == parts
    check(owner, fits, "indices", f"be (..., {parts})", tuple(indices.shape))
