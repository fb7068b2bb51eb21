"""group_norm_silu: one read and one write where a slab fits into registers, else measured and applied in two launches.

A mean is a sum of two floats: means far from 0 keep their digits. Variances are sums of squared differences from the
mean, joined by Chan's formula; nothing is added atomically. What is normalised may be a sum of maps, which is written
out where others read it, too. See `fastdiff.ops.group_norm_silu`, `group_plans` and `sums`.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import Plan, plan_of
from .group_split import group_norm_apply_kernel, measured
from .launching import register
from .maps import (
    Map,
    activated,
    factor_of,
    map_of,
    members,
    of_channel,
    of_group,
    offset_of,
    place,
    row_stride,
)
from .sums import Summed, finished, loaded, summed


@triton.jit
def group_norm_silu_kernel(
    out,  # (B, C, pixels)
    total,  # s, the map that is normalised; None where nobody else reads it
    statistics,  # float32 (B, G, 3): mean, rest of the mean, 1 / standard deviation
    x,
    add,  # (C,) or (B, C), or None; so is residual_add
    residual,  # (B, C, pixels) or None
    residual_add,
    x2,  # (B, C - first, pixels) or None
    weight,  # (C,) or None; so is bias
    bias,
    scale,  # (B, C), rows scale_stride apart, or None; so is shift
    shift,
    add_stride,
    residual_add_stride,
    scale_stride,
    shift_stride,
    x_sample,
    x_channel,
    x_pixel,
    r_sample,
    r_channel,
    r_pixel,
    x2_sample,
    x2_channel,
    x2_pixel,
    out_sample,
    out_channel,
    out_pixel,
    total_sample,
    total_channel,
    total_pixel,
    split,  # channels of x
    channels,
    pixels,
    groups,
    per_group,
    blocks,  # of a sample
    eps,
    BLOCK: tl.constexpr,  # channels of a program, whole groups
    ACTIVATE: tl.constexpr,
    AFTER: tl.constexpr,  # residual is added to the result
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program normalises whole groups of one sample."""
    program = tl.program_id(0)
    sample, first = (program // blocks).to(tl.int64), program % blocks * BLOCK
    lane, p = tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    c = first + lane
    wanted = (lane < BLOCK) & (c < channels)
    inside = wanted[:, None] & (p < pixels)[None, :]
    r_at = place(sample, r_sample, c, r_channel, p, r_pixel)
    values = loaded(
        x, add, residual, residual_add, x2, place(sample, x_sample, c, x_channel, p, x_pixel), r_at,
        place(sample, x2_sample, c - split, x2_channel, p, x2_pixel), split, sample, add_stride,
        residual_add_stride, c, wanted, inside, AFTER,
    )  # fmt: skip
    if total is not None:
        tl.store(total + place(sample, total_sample, c, total_channel, p, total_pixel), values, mask=inside)

    member = members(c, wanted, per_group, first // per_group, SLOTS)
    share = 1.0 / (1.0 * per_group * pixels)
    mean = of_group(tl.sum(values, 1), member) * share
    centred = tl.where(inside, values - of_channel(mean, member)[:, None], 0.0)
    rest = of_group(tl.sum(centred, 1), member) * share
    centred = tl.where(inside, centred - of_channel(rest, member)[:, None], 0.0)
    variance = of_group(tl.sum(centred * centred, 1), member) * share
    reciprocal = 1.0 / tl.sqrt_rn(variance + eps)

    group = first // per_group + tl.arange(0, SLOTS)
    row, real = (
        statistics + (sample * groups + group) * 3,
        (group < groups) & (group * per_group < first + BLOCK),
    )
    tl.store(row, mean, mask=real)
    tl.store(row + 1, rest, mask=real)
    tl.store(row + 2, reciprocal, mask=real)
    factor = of_channel(reciprocal, member) * factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    y = activated(centred * factor[:, None] + offset[:, None], ACTIVATE)
    y = finished(
        y, residual, residual_add, r_at, sample, residual_add_stride, c, wanted, inside, AFTER
    )  # fmt: skip
    tl.store(out + place(sample, out_sample, c, out_channel, p, out_pixel), y, mask=inside)


#: Elements that a program may hold, and those of a thread.
HELD, OF_THREAD = 32768, 32
#: The same where sums are taken: more is in flight, and maps of two memory orders pass through shared memory.
HELD_OF_SUMS, OF_THREAD_OF_SUMS = 16384, 16


def launch(
    out: Tensor,
    statistics: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    eps: float,
    activate: bool,
) -> None:
    """Write y into out, which lies like x, and the statistics (B, G, 3); see `fastdiff.ops.group_norm_silu`."""
    terms = summed(out, None, x, None, None, None, None)
    _launch(out, None, statistics, x, terms, (weight, bias, scale, shift), groups, eps, activate, False)


def launch_sums(
    out: Tensor,
    total: Tensor | None,
    statistics: Tensor,
    x: Tensor,
    add: Tensor | None,
    residual: Tensor | None,
    residual_add: Tensor | None,
    x2: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    eps: float,
    activate: bool,
    after: bool,
) -> None:
    """The same of a sum, which goes into `total` unless that is None; see `fastdiff.ops.norm_sums`."""
    terms = summed(out, total, x, add, residual, residual_add, x2)
    _launch(out, total, statistics, x, terms, (weight, bias, scale, shift), groups, eps, activate, after)


def _launch(
    out: Tensor,
    total: Tensor | None,
    statistics: Tensor,
    x: Tensor,
    terms: Summed,
    factors: tuple[Tensor | None, ...],
    groups: int,
    eps: float,
    activate: bool,
    after: bool,
) -> None:
    if out.numel() == 0:
        return
    layout = terms.layout
    plan = plan_for(layout, groups, x.element_size(), not terms.plain or terms.out != layout.strides)
    rows = (*terms.rows, row_stride(factors[2]), row_stride(factors[3]))
    sizes = (layout.channels, layout.pixels, groups, layout.channels // groups)
    tile = {"CHANNELS": plan.channels, "PIXELS": plan.pixels, "SLOTS": plan.slots, "num_warps": plan.warps}
    blocks = plan.blocks(layout)
    with torch.cuda.device_of(x):
        if plan.slab:
            group_norm_silu_kernel[(layout.batch * blocks,)](
                *(out, total, statistics, x, *terms.tensors, *factors, *rows),
                *(*terms.x, *terms.residual, *terms.x2, *terms.out, *terms.total, terms.first),
                *(*sizes, blocks, eps),
                BLOCK=plan.block,
                ACTIVATE=activate,
                AFTER=after,
                **tile,
            )
            return
        if total is None and terms.several(after):
            total = torch.empty_like(x if terms.tensors[3] is None else out)
            terms = terms._replace(total=map_of(total).strides)
        partials, cut = measured(x, total, terms, plan, groups, after)
        again = terms.again(x, total, after)
        group_norm_apply_kernel[(layout.batch * blocks * plan.parts(layout),)](
            *(out, statistics, partials, *again, *factors, *rows),
            *(*(terms.x if total is None else terms.total), *terms.residual, *terms.out, *sizes, *cut, eps),
            ACTIVATE=activate,
            AFTER=after,
            WIDE=layout.sample >= 2**31,
            ENTRIES=plan.entries,
            **tile,
        )


def plan_for(layout: Map, groups: int, size: int, sums: bool) -> Plan:
    """The plan of a call, with sums (or a result in another order) or without, on elements of `size` bytes."""
    held = (HELD_OF_SUMS, OF_THREAD_OF_SUMS) if sums else (HELD, OF_THREAD)
    return plan_of(layout, groups, size, *held)


register(
    "group_norm_silu_triton(Tensor(a!) out, Tensor(b!) statistics, Tensor x, Tensor? weight, Tensor? bias, "
    "Tensor? scale, Tensor? shift, int groups, float eps, bool activate) -> ()",
    launch,
)
register(
    "group_norm_silu_of_sum_triton(Tensor(a!) out, Tensor(b!)? total, Tensor(c!) statistics, Tensor x, Tensor? add, "
    "Tensor? residual, Tensor? residual_add, Tensor? x2, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, "
    "int groups, float eps, bool activate, bool after) -> ()",
    launch_sums,
)
