"""The order of the columns and its C++ and Triton copies."""

from pathlib import Path

import pytest

from fastdiff.ops import row

ROOT = Path(__file__).parents[2]
HEADER = ROOT / "csrc" / "include" / "fastdiff" / "row.h"


def test_the_header_is_the_one_this_file_writes():
    assert HEADER.read_text() == row.cpp_header(), "run `make row.h`"
    assert (ROOT / "kernels" / "triton" / "columns.py").read_text() == row.triton_columns(), (
        "run `make row.h`"
    )


def test_defaults_and_names():
    empty = row.make_row()
    assert empty[row.column("gain")] == empty[row.column("g_c")] == empty[row.column("rho")] == 1
    assert empty[row.column("lo")] == -float("inf") and empty[row.column("hi")] == float("inf")
    assert row.make_row(b=0.5)[row.column("b")] == 0.5
    with pytest.raises(ValueError, match="column must be one of gain, g_c.*got 'beta'"):
        row.make_row(beta=1.0)


@pytest.mark.parametrize(
    ("columns", "masked", "needed"),
    [
        ({"b": 1.0}, False, set()),
        ({"u_m": 1.0}, False, {"m"}),
        ({"u_m": 1.0, "g_c": 0.0, "g_u": 1.0}, False, {"m_u"}),
        ({"q_u": 1.0}, False, {"m_u"}),
        ({"d": 1.0}, False, {"cond"}),
        ({"s": 1.0}, False, {"noise"}),
        ({"s": 1.0, "l_1": 0.5}, False, {"noise", "v"}),
        ({"i_y": 1.0, "i_s": 1.0}, False, set()),
        ({"i_y": 1.0, "i_s": 1.0}, True, {"known", "known_noise"}),
        ({"h_1": 1.0}, False, {"history"}),
        ({"push_1": 2.0}, False, {"history"}),
    ],
)
def test_needs(columns, masked, needed):
    assert row.needs(row.make_row(**columns), masked=masked) == needed
