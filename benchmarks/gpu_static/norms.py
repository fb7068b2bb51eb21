"""The cases of group_norm_silu and rms_norm_silu: maps of real networks, and the kernels that each takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import machine


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        op: "group_norm_silu" or "rms_norm_silu".
        title: where such a map comes from.
        channels: C.
        side: height and width.
        last: channels innermost.
        size: bytes of an element, 4 (float32) or 2 (bfloat16).
        backward: the gradient.
        groups: of the group norm.
        terms: maps that are added or joined first, by name; with any of them the sum is written out, too.
    """

    op: str
    title: str
    channels: int
    side: int
    last: bool
    size: int
    backward: bool = False
    groups: int = 32
    terms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Shape, order and type in words."""
        order, kind = "NHWC" if self.last else "NCHW", "float32" if self.size == 4 else "bfloat16"
        terms = f" + {' + '.join(self.terms)}" if self.terms else ""
        return f"{self.title}, {self.channels}x{self.side}x{self.side} {order} {kind}{terms}"


def _both(op: str, *shapes: tuple[str, int, int, bool, int]) -> Iterator[Case]:
    for shape in shapes:
        yield Case(op, *shape)
        yield Case(op, *shape, backward=True)


CASES = (
    *_both(
        "group_norm_silu",
        ("DDPM CIFAR-10", 128, 32, True, 4),
        ("DDPM CIFAR-10", 128, 32, False, 2),
        ("DDPM CIFAR-10", 256, 16, True, 2),
        ("SD 1.5", 320, 64, True, 2),
        ("SD 1.5", 320, 64, False, 4),
        ("SD 1.5", 640, 32, False, 2),
        ("SD 1.5", 1280, 8, True, 2),
        ("SD VAE", 128, 256, True, 2),
    ),
    *_both(
        "rms_norm_silu",
        ("toolbox dim 64", 64, 32, False, 4),
        ("toolbox dim 64", 128, 16, True, 2),
        ("toolbox dim 64", 512, 8, False, 4),
        ("toolbox dim 64", 1024, 8, False, 2),
        ("SD-like", 320, 64, True, 2),
    ),
    Case("group_norm_silu", "DDPM CIFAR-10", 256, 16, False, 4, terms=("add", "residual", "residual_add")),
    Case("group_norm_silu", "DDPM CIFAR-10", 384, 32, False, 4, terms=("add", "x2")),
    Case("group_norm_silu", "DDPM CIFAR-10", 256, 16, True, 2, terms=("add", "residual", "residual_add")),
    Case("group_norm_silu", "SD 1.5", 640, 64, True, 2, terms=("add", "x2")),
    Case("group_norm_silu", "SD 1.5", 640, 32, False, 2, terms=("residual",)),
    Case("rms_norm_silu", "toolbox dim 64", 128, 32, False, 4, terms=("add", "residual")),
    Case("rms_norm_silu", "toolbox dim 64", 256, 16, True, 2, terms=("add", "residual")),
)


def builds(case: Case) -> list[machine.Build]:
    """Every kernel that the call launches, as it launches it; each of its factors is given, in float32."""
    import torch
    from fastdiff.kernels import group_norm_silu, group_norm_silu_backward, rms_norm_silu

    kind = torch.float32 if case.size == 4 else torch.bfloat16
    order = torch.channels_last if case.last else torch.contiguous_format
    size, meta = (2, case.channels, case.side, case.side), torch.device("meta")
    out = torch.empty(size, dtype=kind, device=meta, memory_format=order)
    x = out[:, : case.channels // 2].contiguous(memory_format=order) if "x2" in case.terms else out
    row, rows = torch.empty(case.channels, device=meta), torch.empty(2, case.channels, device=meta)
    known = {"add": row[: x.shape[1]], "residual": x, "residual_add": row[: x.shape[1]], "x2": x}
    terms = [known[name] if name in case.terms else None for name in known]
    total = out if case.terms else None

    def call() -> None:
        statistics, sums = rows.new_empty(2, case.groups, 3), rows.new_empty(2, 2, case.channels)
        stretches = rows.new_empty(2, 4, 2, case.channels)
        of_group, of_rms = (row, row, rows, rows, case.groups), (row, rows, rows, 1e-12, True)
        match case.op, case.backward:
            case "group_norm_silu", False:
                group_norm_silu.launch_sums(out, total, statistics, x, *terms, *of_group, 1e-5, True, False)
            case "group_norm_silu", True:
                group_norm_silu_backward.launch(out, sums, x, statistics, x, *of_group, True)
            case _, False:
                rms_norm_silu.launch_sums(out, total, x, *terms, *of_rms, False)
            case _:
                rms_norm_silu.launch_backward(out, stretches, x, x, *of_rms)

    return machine.launched(call)


def passes(case: Case) -> int:
    """Maps that the launches must read and write: (1R + 1W) or (2R + 1W), backward with the gradient read as well.

    With a residual one more is read, and the sum is written.
    """
    launches = len(builds(case))
    if case.terms:
        return (2 if launches == 1 else 3) + 1 + ("residual" in case.terms)
    return (3 if launches == 1 else 5) if case.backward else (2 if launches == 1 else 3)


def table(architecture: int) -> list[str]:
    """Rows of the table of one architecture."""
    rows = []
    for case in CASES:
        for build in builds(case):
            f = machine.facts(build, architecture)
            held = f"{f.registers} | {f.stack} | {f.shared} | {f.resident(architecture):.0%}"
            rows.append(
                f"| {build.kernel.removesuffix('_kernel')} | {case.name} | {held} | {f.wide('ld')} | {f.wide('st')} |"
            )
    return rows
