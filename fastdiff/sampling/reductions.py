"""Per-sample columns: weights and limits of a row that depend on the network's outputs.

One small reduction over the outputs of each sample, without reading anything on the host; the fused step does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdiff.guidance import Guidance
from fastdiff.ops.row import PER_SAMPLE
from fastdiff.sampling.position import Number, Position


@dataclass(frozen=True)
class Dynamic:
    """Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487): x0 is clamped to [-s, s] and divided by s.

    s is a quantile of |x0| over each sample, but at least the limit of the data; x0 comes out in the data's range.

    Args:
        quantile: 0 ... 1.
        most: Largest s, in units of the limit of the data; None for no bound.

    Raises:
        ValueError: for an argument out of range.
    """

    quantile: float = 0.995
    most: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1 or (self.most is not None and not self.most >= 1):
            raise ValueError(
                f"Dynamic: quantile must be in [0, 1] and most >= 1, got {self.quantile} and {self.most}"
            )


class Adaptation:
    """Makes the `per_sample` columns of each row that needs them.

    Args:
        guidance: Whose weights may depend on the outputs.
        dynamic: Thresholding, or None.
    """

    def __init__(self, guidance: Guidance, dynamic: Dynamic | None) -> None:
        self.guidance, self.dynamic = guidance, dynamic

    def __call__(self, at: Position, x: Tensor, m: Tensor, m_u: Tensor | None) -> Tensor | None:
        """(B, 6) columns of a row from the state and both outputs; None where the row's own serve."""
        adapts = m_u is not None and self.guidance.adapts and at.kind.guided
        if not adapts and self.dynamic is None:
            return None
        columns = x.new_empty((len(x), len(PER_SAMPLE)))
        for i, name in enumerate(PER_SAMPLE):
            columns[:, i].fill_(at.value(name))
        if adapts and m_u is not None:
            columns[:, 0], columns[:, 1] = guided_weights(m.to(x.dtype), m_u.to(x.dtype), self.guidance)
        if self.dynamic is not None:
            unit = at.value("hi")
            limit = dynamic_limit(_estimate(at, x, m, m_u, columns), self.dynamic, unit)
            columns[:, 2], columns[:, 3], columns[:, 4] = -limit, limit, unit / limit
        return columns


def _estimate(at: Position, x: Tensor, m: Tensor, m_u: Tensor | None, columns: Tensor) -> Tensor:
    """x0 of a row before any clamping."""
    shape = (-1, *(1,) * (x.ndim - 1))
    output = columns[:, 0].reshape(shape) * m.to(x.dtype)
    if m_u is not None:
        output = output + columns[:, 1].reshape(shape) * m_u.to(x.dtype)
    return at.value("u_x") * x + at.value("u_m") * output


def guided_weights(m: Tensor, m_u: Tensor, guidance: Guidance) -> Sequence[Tensor]:
    """(g_c, g_u), each (B,), of outputs (B, ...): first the projection, then the rescaling."""
    own, step = m.flatten(1), (m - m_u).flatten(1)
    extra = guidance.w - 1.0
    share = (step * own).sum(1) / (own * own).sum(1).clamp(min=1e-20)
    g_c = 1.0 + extra * (1.0 - (1.0 - guidance.parallel) * share)
    g_u = torch.full_like(g_c, -extra)
    if guidance.rescale == 0:
        return g_c, g_u
    total = g_c + g_u
    variance, spread = own.var(1, correction=0), step.var(1, correction=0)
    mixed = ((own - own.mean(1, keepdim=True)) * step).mean(1)
    guided = total**2 * variance - 2 * total * g_u * mixed + g_u**2 * spread
    ratio = (variance / guided.clamp(min=1e-20)).sqrt()
    factor = guidance.rescale * ratio + 1.0 - guidance.rescale
    return factor * g_c, factor * g_u


def dynamic_limit(x0: Tensor, dynamic: Dynamic, unit: Number) -> Tensor:
    """s of each sample, (B,): the quantile of |x0| between neighbours, at least `unit`."""
    sizes = x0.abs().flatten(1).sort(1).values
    place = dynamic.quantile * (sizes.shape[1] - 1)
    low = int(place)
    high = min(low + 1, sizes.shape[1] - 1)
    found = sizes[:, low] + (place - low) * (sizes[:, high] - sizes[:, low])
    found = torch.clamp(found, min=unit)
    return found if dynamic.most is None else torch.clamp(found, max=dynamic.most * unit)
