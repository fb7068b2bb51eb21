"""A codebook that follows its rows: each code is a moving average of the rows it got."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastdiff.nn.codebook.classic import both_ways
from fastdiff.nn.codebook.quantised import CodeTable, Quantised, check, in_full, perplexity, usage
from fastdiff.nn.codebook.straight_through import search
from fastdiff.ops import vq_code_sums


class EMACodebook(CodeTable):
    """Codes without a gradient, e_k = m_k / N_k with N and m moving averages of counts and sums of rows.

    In training mode every call first quantises with the codes as they are, then moves them:

        N <- decay N + (1 - decay) n        m <- decay m + (1 - decay) sums        e = m / smoothed(N)

    where smoothed(N) = (N + eps) / (sum N + K eps) * sum N. With several processes, counts and sums are added up
    over all of them, and revived codes are those of the first, so that every process keeps the same codebook.

    Args:
        num_codes: K.
        dim: D.
        decay: in [0, 1).
        eps: smoothing, > 0.
        commitment: weight of the pull on the rows, >= 0.
        revive: a code whose N falls below this share of the mean N is dead: it becomes a random row of the batch (of
            torch's generator) and starts anew with the mean N. 0: never. In [0, 1).
        compat: as in the original of the OU bridges: N starts at 0 and is overwritten by smoothed(N), nothing is
            revived, the loss reaches the codes by gradient, too, the mean square counts once, and the perplexity is
            divided by K. A code that gets no row in the first steps then flies far off.

    Source: van den Oord et al. 2017, appendix A.1; revival as in Dhariwal et al. 2020 (Jukebox), section 3.1.
    """

    ema_cluster_size: Tensor
    ema_positions: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        decay: float = 0.99,
        eps: float = 1e-5,
        commitment: float = 0.25,
        revive: float = 0.01,
        compat: bool = False,
    ) -> None:
        super().__init__(num_codes, dim)
        check(self, 0 <= decay < 1, "decay", "lie in [0, 1)", decay)
        check(self, eps > 0, "eps", "be > 0", eps)
        check(self, commitment >= 0, "commitment", "be >= 0", commitment)
        check(self, 0 <= revive < 1, "revive", "lie in [0, 1)", revive)
        self.decay, self.eps, self.commitment, self.compat = decay, eps, commitment, compat
        self.revive = 0.0 if compat else revive
        first = self.initial()
        if compat:
            self.weight = nn.Parameter(first)
        else:
            self.register_buffer("weight", first)
        sizes = torch.zeros(num_codes) if compat else torch.ones(num_codes)
        self.register_buffer("ema_cluster_size", sizes)
        self.register_buffer("ema_positions", first.clone())

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to their codes; in training mode the codes then follow the rows.

        Raises:
            TypeError: z is not floating, or the codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        found = search(z, self.weight)
        if self.training:
            self.follow(z.detach(), found.indices)
        even = perplexity(found.counts) / (self.num_codes if self.compat else 1)
        loss = both_ways(found) if self.compat else self.commitment * found.commitment_loss
        return Quantised(found.quantised, found.indices, loss, even, usage(found.counts))

    @torch.no_grad()
    def follow(self, z: Tensor, indices: Tensor) -> None:
        """Move the codes towards the rows z (..., D) that have `indices` (...)."""
        sums, counts = vq_code_sums(z, indices, self.num_codes)
        sums, counts = sums.to(self.weight.dtype), counts.to(self.weight.dtype)
        if _several_processes():
            dist.all_reduce(sums)
            dist.all_reduce(counts)
        size, positions = self.ema_cluster_size, self.ema_positions
        size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        positions.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = size.sum()
        smoothed = (size + self.eps) / (total + self.num_codes * self.eps) * total
        if self.compat:
            size.copy_(smoothed)
        # total is 0 only in compat, before the first row: then there is no mean to take
        self.weight.copy_(torch.where(total > 0, positions / smoothed[:, None], self.weight))
        if self.revive:
            self._revive(z)

    def _revive(self, z: Tensor) -> None:
        mean = self.ema_cluster_size.mean()
        rows = self._candidates(z)
        dead = (self.ema_cluster_size < self.revive * mean) & rows.isfinite().all(1)
        self.ema_cluster_size.copy_(torch.where(dead, mean, self.ema_cluster_size))
        self.ema_positions.copy_(torch.where(dead[:, None], rows * mean, self.ema_positions))
        self.weight.copy_(torch.where(dead[:, None], rows, self.weight))

    def _candidates(self, z: Tensor) -> Tensor:
        """(K, D) random rows, the same on every process; not a number where there is no row."""
        count = z.shape[:-1].numel()
        rows = torch.full_like(self.weight, torch.nan)
        if count:
            picked = torch.randint(count, (self.num_codes,), device=z.device)
            rows = in_full(z[torch.unravel_index(picked, z.shape[:-1])]) if z.dim() > 1 else rows.copy_(z)
        if _several_processes():
            rows = rows.contiguous()
            dist.broadcast(rows, src=0)
        return rows


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
