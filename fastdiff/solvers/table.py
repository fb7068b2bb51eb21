"""StepTable: everything a solver decides, as rows of numbers.

A row is at most one evaluation of the network and one fused update; `fastdiff.ops.row` names its columns and says
what they do. A table is computed once on the host in float64. A solver is any function that returns one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff.ops.philox import Stream
from fastdiff.ops.row import COLUMNS, HISTORIES, PUSHES, WIDTH, Push, column

_UNBOUNDED = ("lo", "hi")
_WHOLE = ("noise_row", *(f"slot_{k}" for k in range(HISTORIES)), *(f"push_{k}_slot" for k in range(PUSHES)))


@dataclass(frozen=True, eq=False)
class StepTable:
    """The rows of one sampling run.

    Args:
        rows: (R, WIDTH) float64, R >= 1, in the order they are carried out. Copied and made read-only.
        solver: Name for messages.
        history: Number of slots of the history ring the rows use.
        discrete_time: The network is told integer times (int64), else float32 ones.
        init_noise: Factor on the noise that makes the initial state.
        init_cond: Factor on the conditioning image in the initial state.
        start: (alpha, sigma) of the state that enters the first row, for starts from a noised image.
        anchored: The states gather around the conditioning image: an image y at level (alpha, sigma) is
            alpha y + (1 - alpha) cond + sigma noise; see `fastdiff.solvers.anchored`.

    Raises:
        ValueError: for a wrong shape, a number that is not finite, an unknown code or a history slot that is out of
            range or read before any row has pushed it.
    """

    rows: NDArray[np.float64]
    solver: str = "custom"
    history: int = 0
    discrete_time: bool = True
    init_noise: float = 1.0
    init_cond: float = 0.0
    start: tuple[float, float] = (0.0, 1.0)
    anchored: bool = False

    def __post_init__(self) -> None:
        rows = np.array(self.rows, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] != WIDTH:
            raise ValueError(f"StepTable: rows must be (R >= 1, {WIDTH}), got {rows.shape}")
        rows.setflags(write=False)
        object.__setattr__(self, "rows", rows)
        self._check_numbers()
        self._check_codes()
        self._check_history()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """One column by name, (R,)."""
        return self.rows[:, column(name)]

    @property
    def evaluations(self) -> int:
        """How many times the network is called (a guided call of two branches counts once)."""
        return int(self["eval"].sum())

    @property
    def branches(self) -> int:
        """How many network outputs a sample costs: a guided call of two branches counts twice."""
        return sum(1 + self.second_branch(int(k)) for k in np.flatnonzero(self["eval"]))

    @property
    def levels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(alpha, sigma) of the state that enters each row, (R,) each, as the rows before say."""
        alpha, sigma = (
            np.append(first, self[name][:-1]) for first, name in zip(self.start, ("i_y", "i_s"), strict=True)
        )
        return alpha, sigma

    @property
    def uses_cond(self) -> bool:
        """Whether the initial state or a row reads the conditioning image."""
        return self.anchored or self.init_cond != 0 or any(self[name].any() for name in ("u_c", "p_c", "d"))

    def second_branch(self, row: int) -> bool:
        """Whether a row reads the second tensor of the guidance pair."""
        return any(self[name][row] != 0 for name in ("g_u", "q_u", "p_u"))

    def tensor(self, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """The rows as a tensor (R, WIDTH) for `ops.solver_step`."""
        return torch.tensor(self.rows, dtype=dtype, device=device)

    def times(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """What the network is told in each row: (R, batch), int64 for discrete time, else of `dtype`."""
        kind = torch.int64 if self.discrete_time else dtype
        return torch.tensor(self["t"], dtype=kind, device=device).unsqueeze(1).repeat(1, batch)

    def with_columns(self, **columns: float | NDArray[np.float64]) -> StepTable:
        """A copy with some columns replaced by a number or by (R,) numbers."""
        rows = self.rows.copy()
        for name, values in columns.items():
            rows[:, column(name)] = values
        return replace(self, rows=rows)

    def starting_at(self, row: int) -> StepTable:
        """The table from `row` on; every row keeps its noise, so a later start draws the same numbers.

        Raises:
            ValueError: when there is no such row, or the rest needs what the skipped rows remember.
        """
        if not 0 <= row < len(self):
            raise ValueError(f"starting_at: row must be in [0, {len(self)}), got {row}")
        if row == 0:
            return self
        start = float(self["i_y"][row - 1]), float(self["i_s"][row - 1])
        return replace(self, rows=self.rows[row:], start=start, init_noise=start[1])

    def _check_numbers(self) -> None:
        wrong = ~np.isfinite(self.rows)
        for name in _UNBOUNDED:
            wrong[:, column(name)] = np.isnan(self[name])
        if wrong.any():
            row, index = np.argwhere(wrong)[0]
            raise ValueError(
                f"StepTable: {COLUMNS[index]} must be finite, got {self.rows[row, index]} in row {row} of {self.solver}"
            )
        if np.any(self["lo"] > self["hi"]):
            raise ValueError("StepTable: lo must be <= hi in every row, got the opposite")

    def _check_codes(self) -> None:
        allowed = {
            "eval": (0, 1),
            "stream": tuple(Stream),
            **{f"push_{k}": tuple(Push) for k in range(PUSHES)},
        }
        for name, codes in allowed.items():
            if not np.isin(self[name], codes).all():
                known = ", ".join(str(int(code)) for code in codes)
                raise ValueError(f"StepTable: {name} must be one of {known}, got {np.unique(self[name])}")
        for name in _WHOLE:
            if np.any(self[name] < 0) or np.any(self[name] != np.floor(self[name])):
                raise ValueError(f"StepTable: {name} must be whole numbers >= 0, got {np.unique(self[name])}")
        times = self["t"][self["eval"] == 1]
        if self.discrete_time and np.any((times < 0) | (times != np.floor(times))):
            raise ValueError("StepTable: t must be whole numbers >= 0 in discrete time, got others")

    def _check_history(self) -> None:
        filled: set[float] = set()
        for i in np.flatnonzero(self._uses_history()):
            read = {self[f"slot_{k}"][i] for k in range(HISTORIES) if self[f"h_{k}"][i] != 0}
            if not read <= filled:
                raise ValueError(
                    f"StepTable: row {i} of {self.solver} must read history that earlier rows pushed, "
                    f"got slots {sorted(map(int, read - filled))} still empty"
                )
            filled |= {self[f"push_{k}_slot"][i] for k in range(PUSHES) if self[f"push_{k}"][i] != Push.NONE}
        if filled and max(filled) >= self.history:
            raise ValueError(
                f"StepTable: history must be > {int(max(filled))} (a pushed slot), got {self.history}"
            )

    def _uses_history(self) -> NDArray[np.bool_]:
        """(R,) which rows read or push."""
        names = [*(f"h_{k}" for k in range(HISTORIES)), *(f"push_{k}" for k in range(PUSHES))]
        return np.any([self[name] != 0 for name in names], axis=0)
