"""group_norm_silu: one read and one write where a slab fits into registers, else measured and applied in two launches.

A mean is a sum of two floats: means far from 0 keep their digits. Variances are sums of squared differences from the
mean, joined by Chan's formula; nothing is added atomically. See `fastdiff.ops.group_norm_silu` and `group_plans`.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import Plan, plan_of
from .launching import register
from .maps import Map, activated, factor_of, map_of, members, of_channel, of_group, offset_of, row_stride


@triton.jit
def group_norm_silu_kernel(
    out,  # (B, C, pixels) like x
    statistics,  # float32 (B, G, 3): mean, rest of the mean, 1 / standard deviation
    x,
    weight,  # float32 (C,) or None; so is bias
    bias,
    scale,  # float32 (B, C), rows scale_stride apart, or None; so is shift
    shift,
    scale_stride,
    shift_stride,
    x_sample,
    x_channel,
    x_pixel,
    channels,
    pixels,
    groups,
    per_group,
    blocks,  # of a sample
    eps,
    BLOCK: tl.constexpr,  # channels of a program, whole groups
    ACTIVATE: tl.constexpr,
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
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)

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
    tl.store(out + at, activated(centred * factor[:, None] + offset[:, None], ACTIVATE), mask=inside)


@triton.jit
def group_norm_partial_kernel(
    partials,  # float32 (B, G, 3, overlaps, parts): mean, its rest, squared differences from it
    x,
    x_sample,
    x_channel,
    x_pixel,
    channels,
    pixels,
    groups,
    per_group,
    blocks,
    overlaps,
    parts,
    part,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program measures CHANNELS channels x `part` pixels, a running mean in every lane (Welford 1962)."""
    program = tl.program_id(0)
    index, part_index = program // parts, program % parts
    sample, first = (index // blocks).to(tl.int64), index % blocks * CHANNELS
    c = first + tl.arange(0, CHANNELS)
    wanted = c < channels
    begin = part_index * part
    end = tl.minimum(begin + part, pixels)
    lane = tl.arange(0, PIXELS)
    p = (begin.to(tl.int64) if WIDE else begin) + lane
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    inside = wanted[:, None] & (p < end)[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    pivot = tl.sum(values, 1) / tl.minimum(end - begin, PIXELS)
    mean = tl.where(inside, values - pivot[:, None], 0.0)
    squares = tl.zeros((CHANNELS, PIXELS), tl.float32)
    seen = 1.0
    for start in range(begin + PIXELS, end, PIXELS):
        at += PIXELS * x_pixel
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - pivot[:, None]
        seen += 1.0
        change = tl.where(inside, values - mean, 0.0)
        mean += change * (1.0 / seen)
        squares += change * (values - mean)

    count = tl.cdiv(tl.maximum(end - begin - lane, 0), PIXELS).to(tl.float32)[None, :]
    length = (end - begin).to(tl.float32)
    of_lane = tl.sum(count * mean, 1) / length
    apart = tl.where(wanted[:, None], mean - of_lane[:, None], 0.0)
    squares_of_channel = tl.sum(squares + count * (apart * apart), 1)
    member = members(c, wanted, per_group, first // per_group, SLOTS)
    held = tl.maximum(of_group(tl.where(wanted, 1.0, 0.0), member), 1.0)
    high = of_group(pivot, member) / held
    apart = tl.where(wanted, (pivot - of_channel(high, member)) + of_lane, 0.0)
    low = of_group(apart, member) / held
    apart = tl.where(wanted, apart - of_channel(low, member), 0.0)
    total = of_group(squares_of_channel + length * (apart * apart), member)

    group = first // per_group + tl.arange(0, SLOTS)
    real = (group < groups) & (group * per_group < first + CHANNELS)
    overlap = first // CHANNELS - group * per_group // CHANNELS
    plane = overlaps * parts
    row = partials + (sample * groups + group) * 3 * plane + overlap * parts + part_index
    tl.store(row, high, mask=real)
    tl.store(row + plane, low, mask=real)
    tl.store(row + 2 * plane, total, mask=real)


@triton.jit
def joined(
    partials, sample, group, channels, pixels, groups, per_group, overlaps, parts, part,
    CHANNELS: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """(mean, rest of the mean, variance) of the groups, joined from all partials (Chan et al. 1979)."""
    entry = tl.arange(0, ENTRIES)
    real = (group < groups)[:, None] & (entry < overlaps * parts)[None, :]
    start = group * per_group
    block = (start // CHANNELS)[:, None] + (entry // parts)[None, :]
    width = tl.minimum((block + 1) * CHANNELS, (start + per_group)[:, None])
    width = tl.minimum(width, channels) - tl.maximum(block * CHANNELS, start[:, None])
    length = tl.minimum(pixels - entry % parts * part, part)
    real = real & (width > 0)
    count = tl.where(real, width * length[None, :].to(tl.float32), 0.0)
    plane = overlaps * parts
    row = partials + ((sample * groups + group) * 3 * plane)[:, None] + entry[None, :]
    high = tl.load(row, mask=real, other=0.0)
    low = tl.load(row + plane, mask=real, other=0.0)
    squares = tl.load(row + 2 * plane, mask=real, other=0.0)
    share = 1.0 / (1.0 * per_group * pixels)
    mean = tl.sum(count * high, 1) * share
    apart = tl.where(real, (high - mean[:, None]) + low, 0.0)
    rest = tl.sum(count * apart, 1) * share
    apart = tl.where(real, apart - rest[:, None], 0.0)
    return mean, rest, tl.sum(squares + count * (apart * apart), 1) * share


@triton.jit
def group_norm_apply_kernel(
    out,
    statistics,
    partials,
    x,
    weight,
    bias,
    scale,
    shift,
    scale_stride,
    shift_stride,
    x_sample,
    x_channel,
    x_pixel,
    channels,
    pixels,
    groups,
    per_group,
    blocks,
    overlaps,
    parts,
    part,
    eps,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """One program joins what was measured of its groups and writes CHANNELS channels x `part` pixels."""
    program = tl.program_id(0)
    index, part_index = program // parts, program % parts
    sample, first = (index // blocks).to(tl.int64), index % blocks * CHANNELS
    c = first + tl.arange(0, CHANNELS)
    wanted = c < channels
    group = first // per_group + tl.arange(0, SLOTS)
    mean, rest, variance = joined(
        partials, sample, group, channels, pixels, groups, per_group, overlaps, parts, part, CHANNELS, ENTRIES
    )
    reciprocal = 1.0 / tl.sqrt_rn(variance + eps)
    starts_here = (group < groups) & (group * per_group >= first) & (group * per_group < first + CHANNELS)
    if part_index == 0:
        row = statistics + (sample * groups + group) * 3
        tl.store(row, mean, mask=starts_here)
        tl.store(row + 1, rest, mask=starts_here)
        tl.store(row + 2, reciprocal, mask=starts_here)

    member = members(c, wanted, per_group, first // per_group, SLOTS)
    high, low = of_channel(mean, member)[:, None], of_channel(rest, member)[:, None]
    factor = of_channel(reciprocal, member) * factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    begin = part_index * part
    end = tl.minimum(begin + part, pixels)
    lane = tl.arange(0, PIXELS)
    p = (begin.to(tl.int64) if WIDE else begin) + lane
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        u = ((values - high) - low) * factor[:, None] + offset[:, None]
        tl.store(out + at, activated(u, ACTIVATE), mask=inside)
        at += PIXELS * x_pixel


#: Elements that a program may hold, and those of a thread.
HELD, OF_THREAD = 32768, 32


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
    if x.numel() == 0:
        return
    layout = map_of(x)
    plan = plan_of(layout, groups, x.element_size(), HELD, OF_THREAD)
    strides = (row_stride(scale), row_stride(shift), *layout.strides)
    sizes = (layout.channels, layout.pixels, groups, layout.channels // groups)
    tile = {"CHANNELS": plan.channels, "PIXELS": plan.pixels, "SLOTS": plan.slots, "num_warps": plan.warps}
    blocks = plan.blocks(layout)
    with torch.cuda.device_of(x):
        if plan.slab:
            group_norm_silu_kernel[(layout.batch * blocks,)](
                *(out, statistics, x, weight, bias, scale, shift, *strides, *sizes, blocks, eps),
                BLOCK=plan.block,
                ACTIVATE=activate,
                **tile,
            )
            return
        partials, cut = measured(x, layout, plan, groups)
        group_norm_apply_kernel[(layout.batch * blocks * plan.parts(layout),)](
            *(out, statistics, partials, x, weight, bias, scale, shift, *strides, *sizes, *cut, eps),
            ACTIVATE=activate,
            WIDE=layout.sample >= 2**31,
            ENTRIES=plan.entries,
            **tile,
        )


def measured(x: Tensor, layout: Map, plan: Plan, groups: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Partials of every block and part, and (blocks, overlaps, parts, part)."""
    cut = (plan.blocks(layout), plan.overlaps, plan.parts(layout), plan.part)
    shape = (layout.batch, groups, 3, plan.overlaps, cut[2])
    partials = torch.empty(shape, dtype=torch.float32, device=x.device)
    group_norm_partial_kernel[(layout.batch * cut[0] * cut[2],)](
        *(
            partials,
            x,
            *layout.strides,
            layout.channels,
            layout.pixels,
            groups,
            layout.channels // groups,
            *cut,
        ),
        WIDE=layout.sample >= 2**31,
        CHANNELS=plan.channels,
        PIXELS=plan.pixels,
        SLOTS=plan.slots,
        num_warps=plan.warps,
    )
    return partials, cut


register(
    "group_norm_silu_triton(Tensor(a!) out, Tensor(b!) statistics, Tensor x, Tensor? weight, Tensor? bias, "
    "Tensor? scale, Tensor? shift, int groups, float eps, bool activate) -> ()",
    launch,
)
