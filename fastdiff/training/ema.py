"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A copy of a network that follows it slowly.

    Args:
        net: the network that is trained.
        decay: share of the old average that is kept at every update; early on (1 + n) / (10 + n), if less.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    def current_decay(self) -> float:
        """The decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Move the average towards the weights of `net`; buffers are copied."""
        averaged = [p.detach() for p in self.net.parameters()]
        torch._foreach_lerp_(averaged, [p.detach() for p in net.parameters()], 1.0 - self.current_decay())
        for mine, theirs in zip(self.net.buffers(), net.buffers()):
            mine.copy_(theirs)
        self.updates += 1
