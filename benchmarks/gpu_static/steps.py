"""The cases of normal, add_noise and solver_step: which tensors are given, and the bytes that they must move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import machine

_FLOATS = {"*fp32": 4, "*fp16": 2, "*bf16": 2}
_STATE = (
    "out",
    "noise_out",
    "x0_out",
    "x0",
    "x",
    "m",
    "m_u",
    "v",
    "cond",
    "noise",
    "known",
    "mask",
    "known_noise",
)
_READ_ONLY_STATE = frozenset(_STATE) - {"out", "noise_out", "x0_out"}


@dataclass(frozen=True)
class Case:
    """One specialisation of a kernel: which pointers are given, and of which types.

    Attributes:
        kernel: file of `fastdiff.kernels` that holds `<kernel>_kernel`.
        title: what it does, for the table.
        given: optional pointers that are not None; the rest of `optional` is.
        types: pointer types other than float32.
        history: (reads, writes) of the ring.
    """

    kernel: str
    title: str
    given: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    history: tuple[int, int] = (0, 0)


CASES = (
    Case("normal", "noise alone"),
    Case("add_noise", "noise made inside", ("seeds",)),
    Case("add_noise", "bfloat16 data, noise kept", ("seeds", "noise_out"), {"x0": "*bf16"}),
    Case("solver_step", "DDPM: x, m, noise made inside", ("m", "seeds")),
    Case("solver_step", "the same, bfloat16 m", ("m", "seeds"), {"m": "*bf16"}),
    Case("solver_step", "three histories, two pushes", ("m", "history"), history=(3, 2)),
    Case("solver_step", "guidance pair, float16", ("m", "m_u"), {"m": "*fp16", "m_u": "*fp16"}),
    Case(
        "solver_step",
        "everything a row may read",
        ("m", "m_u", "v", "cond", "history", "seeds", "known", "mask", "per_sample", "x0_out"),
        history=(3, 2),
    ),
)
_POINTERS = {
    "normal": {"out": "*fp32", "seeds": "*i64", "rows": None},
    "add_noise": {
        **dict.fromkeys(("out", "x0", "alpha", "sigma"), "*fp32"),
        **dict.fromkeys(("noise_out", "seeds", "rows", "noise", "shifts")),
    },
    "solver_step": {
        **dict.fromkeys(("out", "table", "x"), "*fp32"),
        "counter": "*i64",
        **dict.fromkeys(("x0_out", "history", "m", "m_u", "v", "cond", "seeds", "noise", "known", "mask")),
        **dict.fromkeys(("known_noise", "per_sample")),
    },
}
#: Whole numbers that are multiples of 16 for states of real sizes; triton looks at each call.
_ROUND = ("count", "pixels", "ring", "x0_sample", "net_sample", "mask_sample")
_FIXED = {"DENSE": True, "NET_DENSE": True, "MASK_DENSE": True, "WIDE": False}


def pointers(case: Case) -> dict[str, str | None]:
    """Type of every pointer argument, None where it is not given."""
    kinds: dict[str, str | None] = dict(_POINTERS[case.kernel])
    kinds |= {name: "*i64" if name == "seeds" else "*fp32" for name in case.given}
    return kinds | dict(case.types)


def build(case: Case) -> machine.Build:
    """How the case is compiled; the same for all architectures."""
    from fastdiff.kernels.launching import BLOCK, WARPS

    kinds = pointers(case)
    fixed: dict[str, Any] = {**_FIXED, "BLOCK": BLOCK} | {
        n: None for n, kind in kinds.items() if kind is None
    }
    types = {name: kind for name, kind in kinds.items() if kind is not None}
    types |= {"offset": "fp32", "row": "i64", "ring": "i64"}
    return machine.Build(case.kernel, f"{case.kernel}_kernel", types, fixed, _ROUND, WARPS)


def ideal_accesses(case: Case) -> tuple[int, int, int]:
    """(bytes, loads, stores) that one thread of 8 elements must make; an access moves 16 bytes."""
    kinds = pointers(case)
    width = {name: 8 * _FLOATS[str(kinds[name])] for name in _STATE if kinds.get(name)}
    loads = sum(size for name, size in width.items() if name in _READ_ONLY_STATE) + 32 * case.history[0]
    stores = sum(size for name, size in width.items() if name not in _READ_ONLY_STATE) + 32 * case.history[1]
    return loads + stores, loads // 16, stores // 16


def moved(facts: machine.Facts) -> int:
    """Bytes of all accesses of a block of 128 threads; what is not 128 bits wide (the row, the seed) is one address."""
    wide = 16 * 128 * (facts.wide("ld") + facts.wide("st"))
    return wide + sum(size for _, size in facts.accesses if size != 16)


def table(architecture: int) -> list[str]:
    """Rows of the table of one architecture."""
    rows = []
    for case in CASES:
        f, ideal = machine.facts(build(case), architecture), ideal_accesses(case)[0] / 8
        held = f"{f.registers} | {f.stack} | {f.shared} | {f.resident(architecture):.0%}"
        of_element = moved(f) / 1024
        bytes_moved = f"{of_element:.2f} / {ideal:.0f} = {of_element / ideal:.3f}"
        rows.append(
            f"| {case.kernel} | {case.title} | {held} | {f.wide('ld')} | {f.wide('st')} | {f.mul_hi} | {bytes_moved} |"
        )
    return rows
