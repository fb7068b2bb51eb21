"""Product quantisation: each slice of a row has a codebook of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdiff.nn.codebook.quantised import Quantised, Quantiser, check
from fastdiff.nn.codebook.residual import check_parts, gathered, several


class ProductCodebook(Quantiser):
    """z is cut into S slices of D/S, each quantised by itself: K^S combinations for K * D numbers; indices (..., S).

    Args:
        num_codes: K of each part.
        dim: D, a multiple of `parts`.
        parts: S.
        flavor: "ema" or "classic".

    Source: Jegou et al. 2011.
    """

    def __init__(self, num_codes: int, dim: int, *, parts: int = 2, flavor: str = "ema") -> None:
        super().__init__()
        check(self, isinstance(parts, int) and parts >= 1, "parts", "be an integer >= 1", parts)
        check(self, dim % parts == 0, "dim", f"be a multiple of {parts} parts", dim)
        self.parts = several(self, parts, "parts", flavor, num_codes, dim // parts)
        self.num_codes, self.dim = num_codes, dim

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to codes set side by side.

        Raises:
            TypeError: z is not floating, or a codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        slices = z.chunk(len(self.parts), dim=-1)
        results = [part(piece) for part, piece in zip(self.parts, slices)]
        return gathered(torch.cat([r.quantised for r in results], -1), results)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes (..., D) of indices (..., S).

        Raises:
            ValueError: for another number of parts, or indices outside [0, K).
        """
        check_parts(self, indices, len(self.parts), self.num_codes)
        return torch.cat([part.lookup(indices[..., i]) for i, part in enumerate(self.parts)], -1)  # type: ignore
