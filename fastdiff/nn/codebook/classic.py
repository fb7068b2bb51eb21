"""The codebook of VQ-VAE: codes learned by gradient, rows drawn to them by a commitment loss."""

from __future__ import annotations

from torch import Tensor, nn

from fastdiff.nn.codebook.quantised import CodeTable, Quantised, check, perplexity, usage
from fastdiff.nn.codebook.straight_through import Searched, search


class Codebook(CodeTable):
    """Codes as a parameter; loss = mean (sg(z) - e)^2 + commitment * mean (z - sg(e))^2.

    Args:
        num_codes: K.
        dim: D.
        commitment: weight of the pull on the rows, >= 0.
        compat: as in the original of the OU bridges: the mean square counts once, with its whole gradient to both
            sides (`commitment` is then without effect), and the perplexity is divided by K.

    Source: van den Oord et al. 2017, eq. 3.
    """

    def __init__(self, num_codes: int, dim: int, *, commitment: float = 0.25, compat: bool = False) -> None:
        super().__init__(num_codes, dim)
        check(self, commitment >= 0, "commitment", "be >= 0", commitment)
        self.commitment, self.compat = commitment, compat
        self.weight = nn.Parameter(self.initial())

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to their codes.

        Raises:
            TypeError: z is not floating, or the codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        found = search(z, self.weight)
        even = perplexity(found.counts) / (self.num_codes if self.compat else 1)
        loss = (
            both_ways(found) if self.compat else found.codebook_loss + self.commitment * found.commitment_loss
        )
        return Quantised(found.quantised, found.indices, loss, even, usage(found.counts))


def both_ways(found: Searched) -> Tensor:
    """The mean square once, with the gradients of both losses."""
    return found.codebook_loss + found.commitment_loss - found.commitment_loss.detach()
