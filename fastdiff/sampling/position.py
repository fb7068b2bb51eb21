"""The current row of the loop, read from the table on the host or, in a recording, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastdiff.ops.row import column
from fastdiff.solvers.table import StepTable

Number = float | Tensor


class Kind(NamedTuple):
    """What a row asks of the host: rows of one kind run the same code.

    Args:
        evaluates: It calls the network.
        guided: It reads the second tensor of the guidance pair.
        scaled: The network's input has a factor other than 1.
        anchored: A known image is drawn to the conditioning image, see `StepTable`.
    """

    evaluates: bool
    guided: bool
    scaled: bool
    anchored: bool = False


def kinds(table: StepTable) -> list[Kind]:
    """The kind of each row."""
    evaluates, scales = table["eval"] == 1, table["c_in"] != 1
    return [
        Kind(bool(e), table.second_branch(k), bool(s), table.anchored)
        for k, (e, s) in enumerate(zip(evaluates, scales))
    ]


class Position(Protocol):
    """One row.

    Attributes:
        kind: See `Kind`.
        row: Its number, for `ops.solver_step`.
        t: (B,) the time told to the network.
    """

    @property
    def kind(self) -> Kind: ...  # noqa: D102
    @property
    def row(self) -> int | Tensor: ...  # noqa: D102
    @property
    def t(self) -> Tensor: ...  # noqa: D102

    def value(self, name: str) -> Number:
        """A column of the row: a number, or a 0-d tensor where the host must not know it."""


class HostPosition(NamedTuple):
    """A row that the host knows."""

    kind: Kind
    row: int
    t: Tensor
    table: StepTable

    def value(self, name: str) -> float:
        """The column as a number."""
        return float(self.table[name][self.row])


class FixedPosition(NamedTuple):
    """A row whose number the host knows, of a table whose numbers it must not know.

    Args:
        kind: Of the row.
        row: Its number.
        rows: (R, WIDTH) the table.
        times: (R, B) the times.
    """

    kind: Kind
    row: int
    rows: Tensor
    times: Tensor

    @property
    def t(self) -> Tensor:
        """(B,) the time of the row."""
        return self.times[self.row]

    def value(self, name: str) -> Tensor:
        """The column as a 0-d tensor."""
        return self.rows[self.row, column(name)]


class DevicePosition:
    """The row that a counter on the device points at: the same code serves all rows of a kind.

    Args:
        kind: Of the rows that it will stand at.
        counter: (1,) int64.
        rows: (R, WIDTH) the table.
        times: (R, B) the times.
    """

    def __init__(self, kind: Kind, counter: Tensor, rows: Tensor, times: Tensor) -> None:
        self.kind, self.row = kind, counter
        self._rows, self._times = rows, times

    @property
    def t(self) -> Tensor:
        """(B,) the time of the row."""
        return self._times.index_select(0, self.row)[0]

    def value(self, name: str) -> Tensor:
        """The column as a 0-d tensor."""
        return self._rows.index_select(0, self.row)[0, column(name)]


def host_positions(table: StepTable, x: Tensor) -> Iterator[HostPosition]:
    """All rows in order, for a state like x (B, ...)."""
    times = table.times(len(x), x.device, x.dtype)
    return (HostPosition(kind, k, times[k], table) for k, kind in enumerate(kinds(table)))


def device_rows(table: StepTable, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(counter at the first row, rows, times) on the device of x, for `DevicePosition`."""
    counter = torch.zeros(1, dtype=torch.int64, device=x.device)
    return counter, table.tensor(x.device, x.dtype), table.times(len(x), x.device, x.dtype)
