"""Guidance: pushing the conditional prediction away from the unconditional one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastdiff.solvers.table import StepTable


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022): m = m_u + w * (m_c - m_u), inside the fused step.

    Both branches are one batched call of the network.

    Args:
        w: Weight; 1 is the conditional network alone, 0 the unconditional one, more is stronger.

    Raises:
        ValueError: when w is not a finite number.
    """

    w: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.w, bool) or not isinstance(self.w, (int, float)) or not math.isfinite(self.w):
            raise ValueError(f"Guidance: w must be a finite number, got {self.w!r}")

    @property
    def active(self) -> bool:
        """True when the unconditional branch has a part in the result."""
        return self.w != 1

    def apply(self, table: StepTable) -> StepTable:
        """The table with the weights of the two branches set in every row."""
        return table.with_columns(g_c=float(self.w), g_u=1.0 - float(self.w)) if self.active else table


def as_guidance(guidance: float | Guidance | None) -> Guidance:
    """A weight, a `Guidance` or None (no guidance) as a `Guidance`."""
    if guidance is None:
        return Guidance()
    return guidance if isinstance(guidance, Guidance) else Guidance(guidance)
