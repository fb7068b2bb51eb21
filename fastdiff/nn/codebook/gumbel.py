"""A codebook of soft choices: while training, a row becomes a random mixture of codes that is almost one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.codebook.quantised import CodeTable, Quantised, check, perplexity, usage
from fastdiff.nn.codebook.straight_through import search


class GumbelCodebook(CodeTable):
    """While training: softmax((g - |z - e_k|^2) / tau) mixes the codes, g being Gumbel noise; else the nearest code.

    The loss is the divergence of q = softmax(-|z - e_k|^2) from the uniform choice, sum_k q_k log(K q_k), averaged
    over rows. Training holds the matrix of all distances, (..., K). The noise is of torch's generator.

    Args:
        num_codes: K.
        dim: D.
        temperature: tau > 0.
        compat: as in the original of the OU bridges: the loss is summed over rows, the perplexity divided by K, and
            outside of training the code is drawn at random, too, from q.

    Source: Jang et al. 2017; Maddison et al. 2017; as a codebook: Esser et al. 2021.
    """

    def __init__(self, num_codes: int, dim: int, *, temperature: float = 0.5, compat: bool = False) -> None:
        super().__init__(num_codes, dim)
        check(self, temperature > 0, "temperature", "be > 0", temperature)
        self.temperature, self.compat = temperature, compat
        self.weight = nn.Parameter(self.initial())

    def forward(self, z: Tensor) -> Quantised:
        """Rows z (..., D) to mixtures of codes (training) or to codes.

        Raises:
            TypeError: z is not floating, or the codebook is half precision.
            ValueError: z has another width.
        """
        self.check_rows(z)
        if not self.training and not self.compat:
            found = search(z, self.weight)
            nothing = found.codebook_loss.new_zeros(())
            return self._result(found.quantised, found.indices, nothing)
        logits = -self.distances(z)
        soft = functional.gumbel_softmax(logits, tau=self.temperature)
        indices = soft.argmax(-1)
        codes = self.mixture(soft) if self.training else self.lookup(indices)
        return self._result(codes, indices, self._divergence(logits))

    def _divergence(self, logits: Tensor) -> Tensor:
        log_q = logits.log_softmax(-1)
        from_uniform = (log_q.exp() * (log_q + torch.tensor(float(self.num_codes)).log())).sum(-1)
        return from_uniform.sum() / (1 if self.compat else max(from_uniform.numel(), 1))

    def _result(self, codes: Tensor, indices: Tensor, loss: Tensor) -> Quantised:
        counts = indices.flatten().bincount(minlength=self.num_codes)
        even = perplexity(counts) / (self.num_codes if self.compat else 1)
        return Quantised(codes, indices, loss, even, usage(counts))
