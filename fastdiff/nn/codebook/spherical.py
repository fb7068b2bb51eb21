"""Codes on the unit sphere: a row becomes the code of the smallest angle to it, or one drawn by angle."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.codebook.quantised import CodeTable, Quantised, check, in_full, perplexity, usage
from fastdiff.nn.codebook.straight_through import search, straight_through

MODES = ("deterministic", "sample", "sample_onehot", "sample_soft")


class SphericalCodebook(CodeTable):
    """Rows and codes divided by their length, so that the nearest code is the one of the largest cosine.

    Args:
        num_codes: K.
        dim: D.
        commitment: weight of the pull on the rows, >= 0.
        mode: "deterministic" takes the nearest code. The others draw by softmax(-temperature * |z - e_k|^2), of
            torch's generator: "sample" a code, with a straight-through gradient; "sample_onehot" a code by a hard
            Gumbel softmax, whose gradient reaches rows and codes; "sample_soft" a soft mixture of codes.
        temperature: inverse temperature of the draws, > 0.

    Source: the toy model of the OU bridges; with cosine distances in Yu et al. 2022 (ViT-VQGAN), section 3.2.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        commitment: float = 0.25,
        mode: str = "deterministic",
        temperature: float = 40.0,
    ) -> None:
        super().__init__(num_codes, dim)
        check(self, commitment >= 0, "commitment", "be >= 0", commitment)
        check(self, mode in MODES, "mode", f"be one of {', '.join(MODES)}", mode)
        check(self, temperature > 0, "temperature", "be > 0", temperature)
        self.commitment, self.mode, self.temperature = commitment, mode, temperature
        self.weight = nn.Parameter(torch.randn(num_codes, dim))

    def codes(self) -> Tensor:
        """(K, D): the codes, of length 1."""
        return functional.normalize(self.weight, dim=1)

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to codes of length 1.

        Raises:
            TypeError: z is not floating, or the codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        rows = functional.normalize(in_full(z), dim=-1)
        found = search(rows, self.codes())
        loss = found.codebook_loss + self.commitment * found.commitment_loss
        codes, indices, counts = found.quantised, found.indices, found.counts
        if self.mode != "deterministic":
            codes, indices = self._drawn(rows)
            counts = indices.flatten().bincount(minlength=self.num_codes)
        return Quantised(codes, indices, loss, perplexity(counts), usage(counts))

    def _drawn(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = -self.temperature * self.distances(rows)
        if self.mode == "sample":
            with torch.no_grad():
                indices = functional.gumbel_softmax(logits).argmax(-1)
            return straight_through(rows, self.lookup(indices)), indices
        chosen = functional.gumbel_softmax(logits, hard=self.mode == "sample_onehot")
        return self.mixture(chosen), chosen.argmax(-1)
