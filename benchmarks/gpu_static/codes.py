"""The cases of vq_nearest and vq_code_sums: widths of real codebooks, and the tile that each architecture gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import machine

_TYPES = {4: "*fp32", 2: "*bf16"}


@dataclass(frozen=True)
class Case:
    """One call: rows of `width` elements of `size` bytes, everything returned."""

    op: str
    width: int
    size: int

    @property
    def name(self) -> str:
        """Width and type in words."""
        return f"D = {self.width}, {'float32' if self.size == 4 else 'bfloat16'}"


CASES = (
    *(Case("vq_nearest", width, size) for size in (4, 2) for width in (32, 64, 256)),
    Case("vq_code_sums", 64, 4),
)


def builds(case: Case, architecture: int) -> Iterator[machine.Build]:
    """Every kernel of the call, as its launch specialises it."""
    from fastdiff.kernels import vq_code_sums, vq_nearest

    kind, integers = (
        _TYPES[case.size],
        ("index", "counts", "order", "codes_of_parts", "starts", "first_parts", "ends"),
    )
    types = dict.fromkeys(integers, "*i64") | dict.fromkeys(("z", "codebook", "quantised"), kind)
    types |= dict.fromkeys(("distance", "pivot", "partials", "sums"), "*fp32")
    fixed: dict[str, object] = {"z_step": 1, "code_step": 1}
    aligned = ("z_row", "code_row", "width", "codes")
    if case.op == "vq_code_sums":
        tile = {"PART": vq_code_sums.PART, "ROWS": vq_code_sums.TILE, "WIDTH": 64}
        yield machine.Build(case.op, "vq_part_sums_kernel", types, fixed | tile, aligned)
        yield machine.Build(case.op, "vq_code_sums_kernel", types, fixed | tile, aligned, 1)
        return
    exact = case.size == 4
    tile = vq_nearest.tile_of(case.width, exact, architecture)
    fixed |= {"ROWS": tile.rows, "CODES": tile.codes, "WIDTH": tile.width}
    fixed |= {"CHUNKS": case.width // tile.width, "PRECISION": "tf32x3" if exact else "tf32"}
    fixed |= {} if exact else {"pivot": None}
    yield machine.Build(case.op, "vq_nearest_kernel", types, fixed, aligned, tile.warps, tile.stages)


def table(architecture: int) -> list[str]:
    """Rows of the table of one architecture."""
    rows = []
    for case in CASES:
        for build in builds(case, architecture):
            f = machine.facts(build, architecture)
            products = ", ".join(f"{count} {name}" for name, count in f.tensor.items() if count) or "-"
            held = f"{f.registers} | {f.stack} | {f.shared} | {f.resident(architecture):.0%}"
            tile = f"{build.fixed['ROWS']} x {build.fixed.get('CODES', '-')} x {build.fixed['WIDTH']}"
            kernel = build.kernel.removesuffix("_kernel")
            rows.append(
                f"| {kernel} | {case.name} | {tile} | {held} | {f.wide('ld')} | {f.wide('st')} | {products} |"
            )
    return rows
