"""A table refuses rows that no loop could carry out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastdiff.ops.row import WIDTH, Push, make_row
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, StepTable, ddim, solver_named

SCHEDULE = Schedule.linear(100)


def test_columns_and_counts() -> None:
    table = ddim(SCHEDULE, "eps", 10)
    assert len(table) == table.evaluations == 10
    assert table["t"].tolist() == [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert table.tensor().dtype == torch.float32
    assert table.tensor(dtype=torch.float64).shape == (10, WIDTH)
    times = table.times(3)
    assert times.dtype == torch.int64
    assert times[2].tolist() == [79, 79, 79]
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 2


def test_starting_later_keeps_noise_rows_and_knows_its_level() -> None:
    table = ddim(SCHEDULE, "eps", 10, eta=1.0)
    later = table.starting_at(4)
    assert later["noise_row"].tolist() == [4, 5, 6, 7, 8, 9]
    assert later.start == pytest.approx((float(SCHEDULE.alpha(59)), float(SCHEDULE.sigma(59))))
    assert table.start == pytest.approx((float(SCHEDULE.alpha(99)), float(SCHEDULE.sigma(99))))
    assert table.starting_at(0) is table
    for row in (-1, 10):
        with pytest.raises(ValueError, match=r"row must be in \[0, 10\)"):
            table.starting_at(row)


def test_starting_later_is_refused_when_the_rest_remembers() -> None:
    rows = [make_row(push_0=Push.X0, push_0_slot=0), make_row(h_0=0.5), make_row()]
    table = StepTable(np.stack(rows), "two", history=1)
    assert len(table.starting_at(2)) == 1
    with pytest.raises(ValueError, match=r"row 0 of two must read history .* slots \[0\] still empty"):
        table.starting_at(1)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": np.nan}, "a must be finite, got nan in row 0"),
        ({"b": np.inf}, "b must be finite"),
        ({"lo": np.nan}, "lo must be finite"),
        ({"lo": 1.0, "hi": -1.0}, "lo must be <= hi"),
        ({"eval": 2}, "eval must be one of 0, 1"),
        ({"stream": 77}, "stream must be one of"),
        ({"push_0": 4}, "push_0 must be one of 0, 1, 2, 3"),
        ({"push_0": 1, "push_0_slot": 3}, "history must be > 3"),
        ({"slot_1": -1}, "slot_1 must be whole"),
        ({"noise_row": 0.5}, "noise_row must be whole"),
        ({"h_2": 1.0}, "must read history that earlier rows pushed"),
        ({"eval": 1, "t": 2.5}, "t must be whole numbers"),
        ({"eval": 1, "t": -1}, "t must be whole numbers"),
    ],
)
def test_rows_refused(columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepTable(make_row(**columns)[None])


@pytest.mark.parametrize("shape", [(0, WIDTH), (WIDTH,), (2, WIDTH - 1)])
def test_shapes_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rows must be"):
        StepTable(np.zeros(shape))


def test_continuous_time_is_float() -> None:
    table = StepTable(make_row(eval=1, t=0.25)[None], discrete_time=False)
    assert table.times(2).dtype == torch.float32
    assert table.times(2, dtype=torch.float64).dtype == torch.float64
    fractional = ddim(SCHEDULE, "v", None, timesteps=[90.5, 3])
    assert not fractional.discrete_time
    assert not dataclasses.replace(fractional, solver="x").discrete_time


def test_registry() -> None:
    assert solver_named("ddim") is ddim
    with pytest.raises(ValueError, match=f"solver must be one of {', '.join(SOLVERS)}, got 'ddmi'"):
        solver_named("ddmi")
