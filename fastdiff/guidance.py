"""Guidance: pushing one prediction away from, or along, a second tensor inside the fused step.

With the guided branch m and the second tensor m_u, a row reads g_c m + g_u m_u. What the second tensor is:

    unconditional branch   the network without its label (Ho and Salimans 2022, arXiv 2207.12598), in one batched call
    weak                   another, worse network (autoguidance, Karras et al. 2024, arXiv 2406.02507)
    classifier             the gradient of log p(label | x) (Dhariwal and Nichol 2021, arXiv 2105.05233)

Weights that depend on the outputs (rescaling, projection) are per-sample columns, computed by one small reduction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiff.solvers.table import StepTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance m_u + w (m - m_u) and its relatives.

    Args:
        w: Weight; 1 is the conditional network alone, 0 the unconditional one, larger is stronger. With a classifier,
            the factor on its gradient: 0 is none, 1 is Bayes' rule.
        rescale: phi, 0 ... 1: how far to restore the conditional output's standard deviation, per sample (Lin et al.
            2023, arXiv 2305.08891, eq. 15-16).
        parallel: How much of the component of m - m_u along m to keep, per sample: 1 all, 0 only the part orthogonal to
            m (the projection of APG, Sadat et al. 2024, arXiv 2410.02416, on the network's output).
        interval: (low, high): guide only if low <= t <= high for the time t passed to the network (Kynkaanniemi et
            al. 2024, arXiv 2404.07724); elsewhere only the conditional branch is evaluated.
        share: Guide only this fraction of the evaluations, starting with the noisiest (adaptive guidance, Castillo et
            al. 2023, arXiv 2312.12487).
        cfg_pp: CFG++ (Chung et al. 2024, arXiv 2406.08070): re-noise with the unconditional branch. For one-step
            solvers; w is then usually 0 ... 1.
        weak: A network (or model, name, path) whose output is the second tensor, called with the same inputs.
        classifier: A function (x, t, **inputs) -> log p of shape (B,), or logits (B, K) with labels, differentiable in
            x.

    Raises:
        ValueError: for an argument out of range, or two second tensors at once.
    """

    w: float = 1.0
    rescale: float = 0.0
    parallel: float = 1.0
    interval: tuple[float, float] | None = None
    share: float = 1.0
    cfg_pp: bool = False
    weak: Any = None
    classifier: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        self._check_number("w", -math.inf, math.inf, "a finite number")
        for name in ("rescale", "parallel", "share"):
            self._check_number(name, 0.0, 1.0, "in [0, 1]")
        if self.interval is not None and not (
            isinstance(self.interval, tuple)
            and len(self.interval) == 2
            and self.interval[0] <= self.interval[1]
        ):
            raise ValueError(
                f"Guidance: interval must be (low, high) with low <= high, got {self.interval!r}"
            )
        if self.classifier is not None and (self.weak is not None or self.cfg_pp or self.adapts):
            raise ValueError(
                "Guidance: classifier must be the only rule but interval and share, got others too"
            )
        if self.classifier is not None and not callable(self.classifier):
            raise ValueError(f"Guidance: classifier must be a function, got {type(self.classifier).__name__}")

    def _check_number(self, name: str, low: float, high: float, words: str) -> None:
        value = getattr(self, name)
        real = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not low <= value <= high:
            raise ValueError(f"Guidance: {name} must be {words}, got {value!r}")

    @property
    def active(self) -> bool:
        """Whether the second tensor affects the result."""
        return self.cfg_pp or (self.w != 0 if self.classifier is not None else self.w != 1)

    @property
    def adapts(self) -> bool:
        """Whether the weights depend on the outputs."""
        return self.rescale != 0 or self.parallel != 1

    def apply(self, table: StepTable) -> StepTable:
        """The table with the weights of both tensors set in the guided rows."""
        if not self.active:
            return table
        guided = self._guided(table)
        columns = self._classifier(table) if self.classifier is not None else self._branches(table)
        return table.with_columns(
            **{name: np.where(guided, values, table[name]) for name, values in columns.items()}
        )

    def _guided(self, table: StepTable) -> NDArray[np.bool_]:
        """(R,) rows whose evaluation is guided."""
        evaluates = table["eval"] == 1
        count = math.ceil(self.share * int(evaluates.sum()) - 1e-9)
        chosen: NDArray[np.bool_] = evaluates & (np.cumsum(evaluates) <= count)
        if self.interval is None:
            return chosen
        low, high = self.interval
        return chosen & (low <= table["t"]) & (table["t"] <= high)

    def _branches(self, table: StepTable) -> dict[str, Floats | float]:
        w = float(self.w)
        weights: dict[str, Floats | float] = {"g_c": w, "g_u": 1.0 - w}
        return {**weights, **self._renoised(table)} if self.cfg_pp else weights

    def _renoised(self, table: StepTable) -> dict[str, Floats | float]:
        """x' = (a + b alpha) x0 + b sigma eps_u for a row that was b x + a x0, eps_u = (x - alpha x0_u) / sigma."""
        if table.history or table.uses_cond:
            raise ValueError(
                f"Guidance: cfg_pp must go with a one-step solver such as ddim, got {table.solver}"
            )
        alpha, _ = table.levels
        b, u_x, u_m = table["b"], table["u_x"], table["u_m"]
        return {"b": b * (1 - alpha * u_x), "q_u": -b * alpha * u_m, "a": table["a"] + b * alpha}

    def _classifier(self, table: StepTable) -> dict[str, Floats | float]:
        """x0 + w sigma^2 / alpha gradient, said in units of the network's output; nothing where alpha is 0."""
        alpha, sigma = table.levels
        usable = (alpha > 0) & (table["u_m"] != 0)
        if np.any((alpha == 0) & (sigma == 0) & (table["eval"] == 1)):
            raise ValueError(
                f"Guidance: classifier must go with rows that name their levels (i_y, i_s), got {table.solver}"
            )
        divisor = np.where(usable, alpha * table["u_m"], 1.0)
        return {"g_u": np.where(usable, float(self.w) * sigma**2 / divisor, 0.0)}


def as_guidance(guidance: float | Guidance | None) -> Guidance:
    """A weight, a `Guidance` or None (no guidance) as a `Guidance`."""
    if guidance is None:
        return Guidance()
    return guidance if isinstance(guidance, Guidance) else Guidance(guidance)
