"""Resampling of RePaint (Lugmayr et al. 2022, arXiv 2201.09865) as rows: jumps back to more noise, without network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastdiff.ops.row import column, make_row
from fastdiff.solvers.table import StepTable


def resampled(table: StepTable, jump: int, repeats: int) -> StepTable:
    """A table that goes through each `jump` rows `repeats` times, so that drawn and known regions come to agree.

    After a pass the state is noised back to the level where it began, x' = b x + s noise with b = alpha / alpha_end;
    every pass draws noise of its own.

    Args:
        table: Of a one-step solver; its rows must name the levels they lead to (i_y, i_s).
        jump: Rows of a pass, >= 1.
        repeats: Passes, >= 1; 1 changes nothing but the numbers of the noise.

    Raises:
        ValueError: for a count below 1 or a solver that remembers earlier rows.
    """
    for name, value in (("jump", jump), ("repeats", repeats)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"resampled: {name} must be an integer >= 1, got {value!r}")
    if table.history or not table["eval"].all():
        raise ValueError(f"resampled: solver must be a one-step one such as ddpm or ddim, got {table.solver}")
    alpha, sigma = (np.append(values, end) for values, end in zip(table.levels, (1.0, 0.0), strict=True))
    rows: list[NDArray[np.float64]] = []
    for first in range(0, len(table), jump):
        last = min(first + jump, len(table))
        back = _back((alpha[last], sigma[last]), (alpha[first], sigma[first]))
        rows += [*table.rows[first:last], *[back, *table.rows[first:last]] * (repeats - 1)]
    stacked = np.stack(rows)
    stacked[:, column("noise_row")] = np.arange(len(stacked))
    return replace(table, rows=stacked)


def _back(now: tuple[float, float], then: tuple[float, float]) -> NDArray[np.float64]:
    """The row without network from a level to a noisier one."""
    b = then[0] / now[0]
    s = max(0.0, then[1] ** 2 - (b * now[1]) ** 2) ** 0.5
    return make_row(b=b, s=s, i_y=then[0], i_s=then[1])
