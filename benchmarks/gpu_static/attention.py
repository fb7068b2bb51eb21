"""The cases of attention and linear_attention: widths of real heads, with the tiles that each architecture gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import machine

_TYPES = {"float32": ("*fp32", 4), "float16": ("*fp16", 2), "bfloat16": ("*bf16", 2)}
_FLOATS = ("statistics", "products", "most", "total", "context", "joined")
_TENSORS = ("out", "q", "k", "v", "gradient", "dq", "dk", "dv")
#: Strides are multiples of 16 in networks whose heads are multiples of 8 wide and that have an even number of them.
_ALIGNED = tuple(f"{name}_{axis}" for name in ("out", "q", "k", "v", "g", "dq", "dk", "dv") for axis in "bhn")


@dataclass(frozen=True)
class Case:
    """One kernel on heads of one width.

    Attributes:
        kernel: of `fastdiff.kernels.attention` or `fastdiff.kernels.linear_attention`.
        width: of a head.
        dtype: of q, k and v.
    """

    kernel: str
    width: int
    dtype: str


def _cases() -> Iterator[Case]:
    for dtype in _TYPES:
        for width in (16, 32, 40, 64, 128, 256, 512, 1024):
            for part in ("", "dq_", "dkv_", "dot_"):
                yield Case(f"attention_{part}kernel", width, dtype)
        for width in (32, 64):
            for part in ("part_", "join_", ""):
                yield Case(f"linear_attention_{part}kernel", width, dtype)


CASES = tuple(_cases())


def build(case: Case, architecture: int) -> machine.Build:
    """The kernel as its launch specialises it."""
    import triton.language as tl
    from fastdiff.kernels import attention as attention_kernels
    from fastdiff.kernels import attention_tiles, linear_attention

    pointer, size = _TYPES[case.dtype]
    types = dict.fromkeys(_TENSORS, pointer) | dict.fromkeys(_FLOATS, "*fp32") | {"scale": "fp32"}
    dot = {"float32": tl.float32, "float16": tl.float16, "bfloat16": tl.bfloat16}[case.dtype]
    fixed: dict[str, Any] = {"DOT": dot, "PRECISION": "tf32x3" if size == 4 else "ieee", "WIDTH": case.width}
    if case.kernel.startswith("linear"):
        last = case.kernel == "linear_attention_kernel"
        rows = linear_attention.queries_of(architecture) if last else linear_attention.ROWS
        fixed |= {"ROWS": rows, "PART": linear_attention.PART}
        fixed |= {"D": attention_tiles.power_of_two(case.width)}
        warps = linear_attention.warps_of(fixed["D"])
        return machine.Build(
            "linear_attention", case.kernel, types, fixed, _ALIGNED, warps, linear_attention.STAGES
        )
    choose = attention_tiles.forward if case.kernel == "attention_kernel" else attention_tiles.backward
    tiles = choose(architecture, case.width, size)
    rows = attention_kernels.DOT_ROWS if case.kernel == "attention_dot_kernel" else tiles.M
    fixed |= {"M": rows, "N": tiles.N, "CHUNK": tiles.CHUNK, "PIECE": tiles.PIECE}
    return machine.Build("attention", case.kernel, types, fixed, _ALIGNED, tiles.warps, tiles.stages)


def table() -> list[str]:
    """Rows for every case and architecture."""
    rows = []
    for case in CASES:
        for architecture in machine.ARCHITECTURES:
            made = build(case, architecture)
            f = machine.facts(made, architecture)
            tile = (
                f"{made.fixed.get('M', made.fixed.get('ROWS'))} x {made.fixed.get('N', made.fixed.get('D'))}"
            )
            products = ", ".join(f"{count} {name}" for name, count in f.tensor.items() if count) or "none"
            rows.append(
                f"| {case.kernel.removesuffix('_kernel')} | {case.width} | {case.dtype} | sm_{architecture} | {tile} | "
                f"{f.registers} | {f.stack} | {f.shared} | {f.resident(architecture):.0%} | "
                f"{f.wide('ld')} of {f.wide('ld') + f.narrow('ld')} | {products} |"
            )
    return rows
