"""The gradient of group_norm_silu: two reads and one write where a slab fits, else sums first and then the gradient.

With n = (x - mean) / deviation, f = weight * (1 + scale) and du the gradient before the activation:
dx = (du * f - mean(du * f) - n * mean(du * f * n)) / deviation, both means over the group.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import plan_of
from .launching import register
from .maps import (
    before_activation,
    factor_of,
    map_of,
    members,
    of_channel,
    of_group,
    offset_of,
    power,
    row_stride,
)


@triton.jit
def of_statistics(statistics, sample, c, groups, per_group, wanted):
    """(mean, rest, 1 / deviation) of each channel's group."""
    row = statistics + (sample * groups + c // per_group) * 3
    mean = tl.load(row, mask=wanted, other=0.0)
    rest = tl.load(row + 1, mask=wanted, other=0.0)
    return mean, rest, tl.load(row + 2, mask=wanted, other=0.0)


@triton.jit
def group_norm_silu_backward_kernel(
    out,  # the gradient of x
    sums,  # float32 (2, B, C): of du, of du * n
    gradient,  # of the result, like x
    statistics,
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
    batch,
    BLOCK: tl.constexpr,
    ACTIVATE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program holds whole groups of one sample."""
    program = tl.program_id(0)
    sample, first = (program // blocks).to(tl.int64), program % blocks * BLOCK
    lane, p = tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    c = first + lane
    wanted = (lane < BLOCK) & (c < channels)
    inside = wanted[:, None] & (p < pixels)[None, :]
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    mean, rest, reciprocal = of_statistics(statistics, sample, c, groups, per_group, wanted)
    factor = factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    n = tl.where(inside, ((values - mean[:, None]) - rest[:, None]) * reciprocal[:, None], 0.0)
    du = before_activation(dy, n * factor[:, None] + offset[:, None], ACTIVATE)
    plain, along = tl.sum(du, 1), tl.sum(du * n, 1)
    tl.store(sums + sample * channels + c, plain, mask=wanted)
    tl.store(sums + (batch + sample) * channels + c, along, mask=wanted)
    member, share = members(c, wanted, per_group, first // per_group, SLOTS), 1.0 / (1.0 * per_group * pixels)
    level = of_channel(of_group(factor * plain, member) * share, member)
    slope = of_channel(of_group(factor * along, member) * share, member)
    dx = du * factor[:, None] - level[:, None] - n * slope[:, None]
    tl.store(out + at, dx * reciprocal[:, None], mask=inside)


@triton.jit
def group_norm_sums_kernel(
    sums,  # float32 (2, parts, B, C)
    gradient,
    statistics,
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
    batch,
    parts,
    part,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """One program adds up CHANNELS channels x `part` pixels."""
    program = tl.program_id(0)
    index, part_index = program // parts, program % parts
    sample, first = (index // blocks).to(tl.int64), index % blocks * CHANNELS
    c = first + tl.arange(0, CHANNELS)
    wanted = c < channels
    mean, rest, reciprocal = of_statistics(statistics, sample, c, groups, per_group, wanted)
    factor = factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    begin = part_index * part
    end = tl.minimum(begin + part, pixels)
    lane = tl.arange(0, PIXELS)
    p = (begin.to(tl.int64) if WIDE else begin) + lane
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    plain, along = tl.zeros((CHANNELS, PIXELS), tl.float32), tl.zeros((CHANNELS, PIXELS), tl.float32)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        n = tl.where(inside, ((values - mean[:, None]) - rest[:, None]) * reciprocal[:, None], 0.0)
        du = before_activation(dy, n * factor[:, None] + offset[:, None], ACTIVATE)
        plain += du
        along += du * n
        at += PIXELS * x_pixel
    row = sums + (part_index * batch + sample) * channels + c
    tl.store(row, tl.sum(plain, 1), mask=wanted)
    tl.store(row + parts * batch * channels, tl.sum(along, 1), mask=wanted)


@triton.jit
def means_of_groups(
    sums, weight, scale, sample, scale_stride, group, batch, channels, pixels, groups, per_group,
    PER_GROUP: tl.constexpr,
):  # fmt: skip
    """Means of du * f and du * f * n over each group."""
    k = tl.arange(0, PER_GROUP)
    c = (group * per_group)[:, None] + k[None, :]
    wanted = (k < per_group)[None, :] & (group < groups)[:, None]
    factor = factor_of(weight, scale, sample, scale_stride, c, wanted)
    plain = tl.load(sums + sample * channels + c, mask=wanted, other=0.0)
    along = tl.load(sums + (batch + sample) * channels + c, mask=wanted, other=0.0)
    share = 1.0 / (1.0 * per_group * pixels)
    return tl.sum(factor * plain, 1) * share, tl.sum(factor * along, 1) * share


@triton.jit
def group_norm_gradient_kernel(
    out,
    sums,  # float32 (2, B, C)
    gradient,
    statistics,
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
    batch,
    parts,
    part,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
    PER_GROUP: tl.constexpr,
):
    """One program writes the gradient of CHANNELS channels x `part` pixels."""
    program = tl.program_id(0)
    index, part_index = program // parts, program % parts
    sample, first = (index // blocks).to(tl.int64), index % blocks * CHANNELS
    c = first + tl.arange(0, CHANNELS)
    wanted = c < channels
    group = first // per_group + tl.arange(0, SLOTS)
    level, slope = means_of_groups(
        sums,
        weight,
        scale,
        sample,
        scale_stride,
        group,
        batch,
        channels,
        pixels,
        groups,
        per_group,
        PER_GROUP,
    )
    member = members(c, wanted, per_group, first // per_group, SLOTS)
    level, slope = of_channel(level, member), of_channel(slope, member)
    mean, rest, reciprocal = of_statistics(statistics, sample, c, groups, per_group, wanted)
    factor = factor_of(weight, scale, sample, scale_stride, c, wanted)
    offset = offset_of(bias, scale, shift, sample, scale_stride, shift_stride, c, wanted)
    begin = part_index * part
    end = tl.minimum(begin + part, pixels)
    lane = tl.arange(0, PIXELS)
    p = (begin.to(tl.int64) if WIDE else begin) + lane
    at = sample * x_sample + (c[:, None] * x_channel + p[None, :] * x_pixel)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        n = ((values - mean[:, None]) - rest[:, None]) * reciprocal[:, None]
        du = before_activation(dy, n * factor[:, None] + offset[:, None], ACTIVATE)
        dx = du * factor[:, None] - level[:, None] - n * slope[:, None]
        tl.store(out + at, dx * reciprocal[:, None], mask=inside)
        at += PIXELS * x_pixel


#: Elements of x that a program may hold beside as many of the gradient, and those of a thread.
HELD, OF_THREAD = 8192, 16


def launch(
    out: Tensor,
    sums: Tensor,
    gradient: Tensor,
    statistics: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    groups: int,
    activate: bool,
) -> None:
    """Write the gradient of x into out and the sums over the pixels into sums (2, B, C)."""
    if x.numel() == 0:
        sums.zero_()
        return
    layout = map_of(x)
    plan = plan_of(layout, groups, x.element_size(), HELD, OF_THREAD)
    blocks, parts = plan.blocks(layout), plan.parts(layout)
    read = (gradient, statistics, x, weight, bias, scale, shift, row_stride(scale), row_stride(shift))
    per_group = layout.channels // groups
    read = (*read, *layout.strides, layout.channels, layout.pixels, groups, per_group)
    tile = {"CHANNELS": plan.channels, "PIXELS": plan.pixels, "num_warps": plan.warps, "ACTIVATE": activate}
    with torch.cuda.device_of(x):
        if plan.slab:
            group_norm_silu_backward_kernel[(layout.batch * blocks,)](
                *(out, sums, *read, blocks, layout.batch), BLOCK=plan.block, SLOTS=plan.slots, **tile
            )
            return
        tile["WIDE"] = layout.sample >= 2**31
        cut, grid = (blocks, layout.batch, parts, plan.part), (layout.batch * blocks * parts,)
        apart = sums.new_empty(2, parts, *sums.shape[1:]) if parts > 1 else sums
        group_norm_sums_kernel[grid](apart, *read, *cut, **tile)
        if parts > 1:
            torch.sum(apart, 1, out=sums)
        group_norm_gradient_kernel[grid](
            *(out, sums, *read, *cut), SLOTS=plan.slots, PER_GROUP=power(per_group), **tile
        )


register(
    "group_norm_silu_backward_triton(Tensor(a!) out, Tensor(b!) sums, Tensor gradient, Tensor statistics, "
    "Tensor x, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, int groups, bool activate) -> ()",
    launch,
)
