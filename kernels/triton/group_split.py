"""The two launches of a group norm whose slab does not fit into registers: measure blocks, then join and apply.

The first may add up several maps as it measures them; then it writes their sum, which the second reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import Plan
from .maps import activated, factor_of, members, of_channel, of_group, offset_of, place
from .sums import Summed, finished, loaded


@triton.jit
def group_norm_partial_kernel(
    partials,  # float32 (B, G, 3, overlaps, parts): mean, its rest, squared differences from it
    total,
    x,
    add,
    residual,
    residual_add,
    x2,
    add_stride,
    residual_add_stride,
    x_sample,
    x_channel,
    x_pixel,
    r_sample,
    r_channel,
    r_pixel,
    x2_sample,
    x2_channel,
    x2_pixel,
    total_sample,
    total_channel,
    total_pixel,
    split,
    channels,
    pixels,
    groups,
    per_group,
    blocks,
    overlaps,
    parts,
    part,
    WIDE: tl.constexpr,
    AFTER: tl.constexpr,
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
    x_at = place(sample, x_sample, c, x_channel, p, x_pixel)
    r_at = place(sample, r_sample, c, r_channel, p, r_pixel)
    x2_at = place(sample, x2_sample, c - split, x2_channel, p, x2_pixel)
    total_at = place(sample, total_sample, c, total_channel, p, total_pixel)
    inside = wanted[:, None] & (p < end)[None, :]
    values = loaded(
        x, add, residual, residual_add, x2, x_at, r_at, x2_at, split, sample, add_stride, residual_add_stride,
        c, wanted, inside, AFTER,
    )  # fmt: skip
    if total is not None:
        tl.store(total + total_at, values, mask=inside)
    pivot = tl.sum(values, 1) / tl.minimum(end - begin, PIXELS)
    mean = tl.where(inside, values - pivot[:, None], 0.0)
    squares = tl.zeros((CHANNELS, PIXELS), tl.float32)
    seen = 1.0
    for start in range(begin + PIXELS, end, PIXELS):
        x_at += PIXELS * x_pixel
        r_at += PIXELS * r_pixel
        x2_at += PIXELS * x2_pixel
        total_at += PIXELS * total_pixel
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = loaded(
            x, add, residual, residual_add, x2, x_at, r_at, x2_at, split, sample, add_stride,
            residual_add_stride, c, wanted, inside, AFTER,
        )  # fmt: skip
        if total is not None:
            tl.store(total + total_at, values, mask=inside)
        values -= pivot[:, None]
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
    x,  # or the sum that was written
    add,
    residual,
    residual_add,
    weight,
    bias,
    scale,
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
    out_sample,
    out_channel,
    out_pixel,
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
    AFTER: tl.constexpr,
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
    x_at = place(sample, x_sample, c, x_channel, p, x_pixel)
    r_at = place(sample, r_sample, c, r_channel, p, r_pixel)
    out_at = place(sample, out_sample, c, out_channel, p, out_pixel)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = loaded(
            x, add, residual, residual_add, None, x_at, r_at, x_at, channels, sample, add_stride,
            residual_add_stride, c, wanted, inside, AFTER,
        )  # fmt: skip
        y = activated(((values - high) - low) * factor[:, None] + offset[:, None], ACTIVATE)
        y = finished(
            y, residual, residual_add, r_at, sample, residual_add_stride, c, wanted, inside, AFTER
        )  # fmt: skip
        tl.store(out + out_at, y, mask=inside)
        x_at += PIXELS * x_pixel
        r_at += PIXELS * r_pixel
        out_at += PIXELS * out_pixel


def measured(
    x: Tensor, total: Tensor | None, terms: Summed, plan: Plan, groups: int, after: bool
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Partials of every block and part, and (blocks, overlaps, parts, part); writes the sum into `total`."""
    layout = terms.layout
    cut = (plan.blocks(layout), plan.overlaps, plan.parts(layout), plan.part)
    shape = (layout.batch, groups, 3, plan.overlaps, cut[2])
    partials = torch.empty(shape, dtype=torch.float32, device=x.device)
    group_norm_partial_kernel[(layout.batch * cut[0] * cut[2],)](
        *(partials, total, x, *terms.tensors, *terms.rows),
        *(*terms.x, *terms.residual, *terms.x2, *terms.total, terms.first),
        *(layout.channels, layout.pixels, groups, layout.channels // groups, *cut),
        WIDE=layout.sample >= 2**31,
        AFTER=after,
        CHANNELS=plan.channels,
        PIXELS=plan.pixels,
        SLOTS=plan.slots,
        num_warps=plan.warps,
    )
    return partials, cut
