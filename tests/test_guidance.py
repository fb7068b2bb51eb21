"""Guidance sets the weights of the two branches in the table."""

from __future__ import annotations

import pytest

from fastdiff.guidance import Guidance, as_guidance
from fastdiff.schedule import Schedule
from fastdiff.solvers import ddim

TABLE = ddim(Schedule.linear(50), "eps", 4)


def test_weights() -> None:
    table = Guidance(2.5).apply(TABLE)
    assert table["g_c"].tolist() == [2.5] * 4
    assert table["g_u"].tolist() == [-1.5] * 4
    assert all(map(table.second_branch, range(4)))


@pytest.mark.parametrize("none", [None, 1, 1.0, Guidance()])
def test_one_is_none(none) -> None:
    assert as_guidance(none).apply(TABLE) is TABLE
    assert not TABLE.second_branch(0)


@pytest.mark.parametrize("w", [float("nan"), float("inf"), "2", None, True])
def test_refused(w) -> None:
    with pytest.raises(ValueError, match="w must be a finite number"):
        Guidance(w)
