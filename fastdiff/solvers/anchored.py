"""The same sampler around another point and at another scale: x = cond + scale z.

A bridge whose noise gathers around a target c with standard deviation s (an Ornstein-Uhlenbeck process) is a
variance-preserving chain z in other coordinates. Every row is linear but for the clamping of x0, so a table made for z
becomes one for x by columns alone. The network is told x and returns the noise, which is the same in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdiff.ops.row import HISTORIES, PUSHES, Push, column
from fastdiff.solvers.table import StepTable

Row = NDArray[np.float64]
_SCALED = ("u_m", "q_m", "q_u", "s", "i_s")


@dataclass(frozen=True, eq=False)
class Anchor:
    """Where a process comes to rest: around `target`, with standard deviation `scale`.

    Args:
        target: a number, or a tensor that broadcasts over one sample.
        scale: > 0.
    """

    target: Tensor | float
    scale: float

    @property
    def at_origin(self) -> bool:
        """Whether the target is 0 everywhere."""
        return not self.target.any() if isinstance(self.target, Tensor) else self.target == 0

    def anchored(self, table: StepTable) -> StepTable:
        """The run of `table` around the target."""
        return anchored(table, self.scale, at_origin=bool(self.at_origin))


def anchored(table: StepTable, scale: float = 1.0, *, at_origin: bool = False) -> StepTable:
    """The run of `table` in x = cond + scale z. The limits of x0 are left as they are: they hold for x.

    Args:
        table: made for an eps network; its rows must not use cond, `gain`, `rho` or `c_in` themselves.
        scale: > 0.
        at_origin: cond is 0 and is not read.

    Raises:
        ValueError: for a scale that is not positive, or a table that cannot be moved.
    """
    if not 0 < scale < np.inf:
        raise ValueError(f"anchored: scale must be finite and > 0, got {scale}")
    plain = all(np.all(table[name] == 1) for name in ("gain", "rho", "c_in"))
    if table.uses_cond or table.anchored or not plain:
        raise ValueError(f"anchored: table must not use cond, gain, rho or c_in, got {table.solver}")
    rows = table.rows.copy()
    held: dict[float, Push] = {}
    for row in rows:
        _move(row, scale, not at_origin, held)
    start = (table.start[0], table.start[1] * scale)
    moved = replace(table, rows=rows, start=start, init_noise=table.init_noise * scale)
    return moved if at_origin else replace(moved, init_cond=1.0, anchored=True)


def _move(row: Row, scale: float, around: bool, held: dict[float, Push]) -> None:
    """Change one row in place; `held` says what each slot of the history holds and is kept up to date."""
    of = {name: column(name) for name in (*_SCALED, "u_x", "u_c", "p_x", "p_0", "p_c", "a", "b", "d")}
    reads = [(column(f"h_{k}"), row[column(f"slot_{k}")]) for k in range(HISTORIES)]
    states = sum(row[h] for h, slot in reads if row[h] and held[slot] != Push.EPS)
    for h, slot in reads:
        row[h] *= scale if held.get(slot) == Push.EPS else 1.0
    estimates = row[of["u_x"]] != 0 or row[of["u_m"]] != 0
    for name in _SCALED:
        row[of[name]] *= scale
    for name in ("p_x", "p_0"):
        row[of[name]] /= scale
    if around:
        row[of["u_c"]] = 1.0 - row[of["u_x"]] if estimates else 0.0
        row[of["p_c"]] = -(row[of["p_x"]] + row[of["p_0"]])
        row[of["d"]] = 1.0 - row[of["b"]] - row[of["a"]] - states
    for k in range(PUSHES):
        if row[column(f"push_{k}")] != Push.NONE:
            held[row[column(f"push_{k}_slot")]] = Push(int(row[column(f"push_{k}")]))
