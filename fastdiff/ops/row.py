"""The row of a step table: one network evaluation at most, then one fused update.

Every solver is a table of such rows (`fastdiff.solvers`), and `fastdiff.ops.solver_step` carries out one row.
This file is the only place that knows the order of the columns; `csrc/include/fastdiff/row.h` is written from it
by `cpp_header`, `kernels/triton/columns.py` by `triton_columns` (``make row.h``). Per element (a tensor whose
coefficient is 0 is not read):

    x   = gain * x
    m   = g_c * m + g_u * m_u
    x0  = rho * clamp(u_x * x + u_m * m + u_c * cond, lo, hi)
    eps = p_x * x + p_0 * x0 + p_m * m + p_u * m_u + p_c * cond
    x'  = b * x + a * x0 + q_m * m + q_u * m_u + d * cond + sum_k h_k * history[slot_k]
          + s * exp((l_0 + l_1 * v) / 2) * noise(stream, noise_row)
    x'  = mask * (i_y * known + i_s * noise(KNOWN, noise_row)) + (1 - mask) * x'     where a mask is given
    history[push_slot] = x, x0 or eps     (after every read)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .philox import Stream

#: Coefficients of the update, in the order of the formula.
COEFFICIENTS = (
    *("gain", "g_c", "g_u"),
    *("u_x", "u_m", "u_c", "lo", "hi", "rho"),
    *("p_x", "p_0", "p_m", "p_u", "p_c"),
    *("b", "a", "q_m", "q_u", "d"),
    *("h_0", "h_1", "h_2"),
    *("s", "l_0", "l_1"),
    *("i_y", "i_s"),
)
#: Small whole numbers: slots of the history ring, what is pushed, which noise.
SELECTORS = (
    *("slot_0", "slot_1", "slot_2"),
    *("push_0", "push_0_slot", "push_1", "push_1_slot"),
    *("stream", "noise_row"),
)
#: What the sampling loop reads: whether to call the network, the time told to it, the factor on its input.
CALLER = ("eval", "t", "c_in")
COLUMNS = (*COEFFICIENTS, *SELECTORS, *CALLER)
WIDTH = len(COLUMNS)
HISTORIES = 3
PUSHES = 2
#: Columns that `per_sample` replaces, in its order.
PER_SAMPLE = ("g_c", "g_u", "lo", "hi", "rho", "gain")

_INDEX = {name: i for i, name in enumerate(COLUMNS)}
_DEFAULTS = {
    **dict.fromkeys(("gain", "g_c", "rho", "c_in"), 1.0),
    "lo": -np.inf,
    "hi": np.inf,
    "stream": float(Stream.SOLVER),
}


class Push(IntEnum):
    """What a row writes into the history."""

    NONE = 0
    X = 1
    X0 = 2
    EPS = 3


def column(name: str) -> int:
    """Index of a column; a `ValueError` that lists the columns when there is none of that name."""
    if name not in _INDEX:
        raise ValueError(f"row: column must be one of {', '.join(COLUMNS)}, got {name!r}")
    return _INDEX[name]


def make_row(**columns: float) -> NDArray[np.float64]:
    """One row as float64 (WIDTH,): the defaults, with the named columns set."""
    row = np.zeros(WIDTH)
    for name, value in (_DEFAULTS | columns).items():
        row[column(name)] = value
    return row


def needs(row: Sequence[float], *, masked: bool = False, scaled: bool = False) -> frozenset[str]:
    """Names of the inputs of `solver_step` that a row reads, by its coefficients.

    Args:
        row: WIDTH numbers.
        masked: whether a mask is given.
        scaled: whether per-sample guidance weights replace those of the row.

    Returns:
        A subset of {"m", "m_u", "v", "cond", "noise", "known", "known_noise", "history"}.
    """
    used = {name: row[i] != 0 for name, i in _INDEX.items()}
    network = used["u_m"] or used["p_m"] or used["q_m"]
    wanted = {
        "m": network and (used["g_c"] or scaled),
        "m_u": (network and (used["g_u"] or scaled)) or used["q_u"] or used["p_u"],
        "v": used["s"] and used["l_1"],
        "cond": used["u_c"] or used["p_c"] or used["d"],
        "noise": used["s"],
        "known": masked and used["i_y"],
        "known_noise": masked and used["i_s"],
        "history": bool(slots(row)),
    }
    return frozenset(name for name, wants in wanted.items() if wants)


def slots(row: Sequence[float]) -> list[float]:
    """The history slots that a row reads or writes."""
    read = [row[column(f"slot_{k}")] for k in range(HISTORIES) if row[column(f"h_{k}")] != 0]
    return read + [
        row[column(f"push_{k}_slot")] for k in range(PUSHES) if row[column(f"push_{k}")] != Push.NONE
    ]


def check_columns(op: str, row: Sequence[float], *, made: bool) -> None:
    """A `ValueError` unless the row pushes what there is, and names its noise by whole numbers where that is made."""
    kinds = [row[column(f"push_{k}")] for k in range(PUSHES)]
    if any(kind not in tuple(Push) for kind in kinds):
        raise ValueError(f"{op}: push must be 0 (none), 1 (x), 2 (x0) or 3 (eps), got {kinds}")
    for name in ("noise_row", "stream"):
        value = row[column(name)]
        if made and not (0 <= value < 2**32 and value == int(value)):
            raise ValueError(f"{op}: {name} must be a whole number in [0, 2**32), got {value}")


def cpp_header() -> str:
    """The C++ view of this file."""
    entries = "".join(f"  k_{name} = {i},\n" for name, i in _INDEX.items())
    pushes = "".join(f"  k_push_{push.name.lower()} = {push.value},\n" for push in Push)
    samples = "".join(f"  k_sample_{name} = {i},\n" for i, name in enumerate(PER_SAMPLE))
    streams = "".join(f"  k_stream_{stream.name.lower()} = {stream.value},\n" for stream in Stream)
    return (
        "// Written by `make row.h` from fastdiff/ops/row.py; do not edit.\n#pragma once\n\nnamespace fastdiff {\n\n"
        f"enum RowColumn : int {{\n{entries}  k_row_width = {WIDTH},\n}};\n\n"
        f"enum RowPush : int {{\n{pushes}}};\n\n"
        f"enum RowPerSample : int {{\n{samples}  k_per_sample_width = {len(PER_SAMPLE)},\n}};\n\n"
        f"enum NoiseStream : int {{\n{streams}}};\n\n"
        f"constexpr int kHistories = {HISTORIES};\nconstexpr int kPushes = {PUSHES};\n\n}}  // namespace fastdiff\n"
    )


def triton_columns() -> str:
    """What Triton kernels see of this file."""
    named = [(name.upper(), i) for i, name in enumerate(COLUMNS)] + [("WIDTH", WIDTH)]
    named += [(f"PUSH_{push.name}", push.value) for push in Push]
    named += [(f"SAMPLE_{name.upper()}", i) for i, name in enumerate(PER_SAMPLE)]
    named += [("SAMPLE_WIDTH", len(PER_SAMPLE))]
    named += [(f"STREAM_{stream.name}", stream.value) for stream in Stream]
    constants = "".join(f"{name} = tl.constexpr({value})\n" for name, value in named)
    return (
        '"""Columns of a row, written by `make row.h` from fastdiff/ops/row.py; do not edit."""\n\n'
        f"from __future__ import annotations\n\nimport triton.language as tl\n\n{constants}"
    )
