"""The cases of group_norm_silu and rms_norm_silu: maps of real networks, and the kernels that each takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import machine

_TYPES = {4: "*fp32", 2: "*bf16"}


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


def builds(case: Case) -> Iterator[machine.Build]:
    """Every kernel of the call, as its launch specialises it."""
    import torch
    from fastdiff.kernels import maps

    like = torch.empty(2, case.channels, case.side, case.side, device="meta")
    like = like.contiguous(memory_format=torch.channels_last) if case.last else like
    layout = maps.map_of(like)
    yield from (_group_builds if case.op == "group_norm_silu" else _rms_builds)(case, layout)


_FLOATS = ("weight", "bias", "scale", "shift", "statistics", "partials", "sums", "add", "residual_add")
_TERMS = ("add", "residual", "residual_add", "x2")
_MAPS = ("x", "r", "x2", "out", "total")
_STRIDES = (
    *("add_stride", "residual_add_stride", "scale_stride", "shift_stride"),
    *(f"{name}_{axis}" for name in _MAPS for axis in ("sample", "channel", "pixel")),
    "split",
    "channels",
    "pixels",
    "part",
    "unit",
)


def _build(case: Case, module: str, kernel: str, warps: int, **fixed: object) -> machine.Build:
    maps = ("x", "out", "gradient", "residual", "x2", "total")
    types = dict.fromkeys(maps, _TYPES[case.size]) | dict.fromkeys(_FLOATS, "*fp32")
    types |= dict.fromkeys(("eps", "root"), "fp32")
    ones = [f"{name}_{'channel' if case.last else 'pixel'}" for name in _MAPS]
    fixed = {"ACTIVATE": True, "AFTER": False, "WIDE": False, **dict.fromkeys(ones, 1), **fixed}
    # A second launch reads the sum that the first has written.
    terms = () if kernel == "group_norm_apply_kernel" else case.terms
    fixed |= dict.fromkeys(name for name in _TERMS if name not in terms)
    if not terms:
        fixed["total"] = None
    return machine.Build(module, kernel, types, fixed, [n for n in _STRIDES if n not in ones], warps)


def _group_builds(case: Case, layout: object) -> Iterator[machine.Build]:
    from fastdiff.kernels import group_norm_silu, group_norm_silu_backward, maps
    from fastdiff.kernels.group_plans import plan_of

    module = "group_norm_silu_backward" if case.backward else "group_norm_silu"
    room = group_norm_silu_backward if case.backward else group_norm_silu
    if case.backward:
        plan = plan_of(layout, case.groups, case.size, room.HELD, room.OF_THREAD)
    else:
        plan = room.plan_for(layout, case.groups, case.size, bool(case.terms))
    fixed = {"BLOCK": plan.block, "CHANNELS": plan.channels, "PIXELS": plan.pixels, "SLOTS": plan.slots}
    fixed |= {"ENTRIES": plan.entries, "PER_GROUP": maps.power(case.channels // case.groups)}
    if plan.slab:
        names = [f"{module}_kernel"]
    elif case.backward:
        names = ["group_norm_sums_kernel", "group_norm_gradient_kernel"]
    else:
        names = ["group_norm_partial_kernel", "group_norm_apply_kernel"]
    for name in names:
        place = module if case.backward or plan.slab else "group_split"
        yield _build(case, place, name, plan.warps, **fixed)


def passes(case: Case) -> int:
    """Maps that the launches must read and write: (1R + 1W) or (2R + 1W), backward with the gradient read as well.

    With a residual one more is read, and the sum is written.
    """
    launches = len(list(builds(case)))
    if case.terms:
        return (2 if launches == 1 else 3) + 1 + ("residual" in case.terms)
    return (3 if launches == 1 else 5) if case.backward else (2 if launches == 1 else 3)


def _rms_builds(case: Case, layout: object) -> Iterator[machine.Build]:
    from fastdiff.kernels import rms_norm_silu

    held = rms_norm_silu.OF_THREAD_OF_SUMS if case.terms else rms_norm_silu.OF_THREAD
    held = rms_norm_silu.OF_THREAD_BACKWARD if case.backward else held
    tile = rms_norm_silu.tile_of(layout, case.size, held, not case.backward)
    name = "rms_norm_silu_backward_kernel" if case.backward else "rms_norm_silu_kernel"
    yield _build(case, "rms_norm_silu", name, tile.warps, CHANNELS=tile.channels, PIXELS=tile.pixels)


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
