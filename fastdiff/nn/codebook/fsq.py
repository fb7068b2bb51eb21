"""Finite scalar quantisation: each number is bounded and rounded; there are no codes to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdiff.nn.codebook.quantised import (
    Quantised,
    Quantiser,
    check,
    check_indices,
    in_full,
    perplexity,
    usage,
)
from fastdiff.nn.codebook.straight_through import straight_through

#: The outermost level is reached a little before tanh gets flat.
_STRETCH = 1 + 1e-3


class FSQ(Quantiser):
    """z_i -> round(tanh(z_i + shift_i) * h_i - offset_i) / (L_i // 2): one of L_i values in [-1, 1].

    The gradient of the rounding is 1. K is the product of the levels; an index counts in them, the first one fastest.

    Args:
        levels: L_i >= 3 for each of the D numbers of a row, such as (8, 5, 5, 5) for 1000 codes (with 2 levels the
            bound would be flat nearly everywhere).

    Source: Mentzer et al. 2023, section 3.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        levels = list(levels)
        fits = bool(levels) and all(isinstance(n, int) and n >= 3 for n in levels)
        check(self, fits, "levels", "hold integers >= 3", levels)
        self.dim, self.num_codes = len(levels), math.prod(levels)
        check(self, self.num_codes < 2**31, "levels", "have a product below 2^31", levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("basis", torch.tensor(steps), persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to their rounded values; the loss is 0. What is not a number stays so, its index is valid.

        Raises:
            TypeError: z is not floating.
            ValueError: z has another width.
        """
        self.check_rows(z)
        bounded = self._bound(in_full(z))
        whole = straight_through(bounded, bounded.round())
        half = self.levels // 2
        indices = ((whole.detach().nan_to_num().long() + half) * self.basis).sum(-1)
        counts = indices.flatten().bincount(minlength=self.num_codes)
        return Quantised(whole / half, indices, whole.new_zeros(()), perplexity(counts), usage(counts))

    def _bound(self, z: Tensor) -> Tensor:
        """z into the open interval whose rounding gives L_i whole numbers."""
        height = (self.levels - 1) * (_STRETCH / 2)
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / height).atanh()).tanh() * height - offset

    def lookup(self, indices: Tensor) -> Tensor:
        """The values (..., D) of indices (...).

        Raises:
            ValueError: for indices outside [0, K).
        """
        check_indices(self, indices, self.num_codes)
        half = self.levels // 2
        return ((indices[..., None] // self.basis) % self.levels - half) / half
