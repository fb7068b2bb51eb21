"""The gradient of group_norm_silu: two reads and one write where a slab fits, else sums first and then the gradient.

With n = (x - mean) / deviation, f = weight * (1 + scale) and du the gradient before the activation:
dx = (du * f - mean(du * f) - n * mean(du * f * n)) / deviation, both means over the group.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import block_of_channels, part_of_pixels, plan_of, whole_groups
from .groups import members, of_channel, of_slot, read_statistics, to_channels
from .launching import register
from .maps import before_activation, factor_of, factors_of, layout_of, map_of, offset_of, place, power


@triton.jit
def normalised(x, at, inside, mean, rest, reciprocal):
    """n of channels x pixels, whose channels have these statistics; anything outside."""
    values = tl.load(x.data + at, mask=inside, other=0.0).to(tl.float32)
    return ((values - mean[:, None]) - rest[:, None]) * reciprocal[:, None]


@triton.jit
def inner_gradient(gradient, at, inside, n, factor, offset, ACTIVATE: tl.constexpr):
    """du of channels x pixels; 0 outside, where n is."""
    dy = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    return before_activation(dy, n * factor[:, None] + offset[:, None], ACTIVATE)


@triton.jit
def group_norm_silu_backward_kernel(
    out,  # the gradient of x
    sums,  # float32 (2, B, C): of du, of du * n
    gradient,  # of the result; lies like x, and so does out
    statistics,  # float32 (B, G, 3)
    x,  # a map
    factors,
    cut,
    batch,
    BLOCK: tl.constexpr,  # channels of a program, whole groups
    ACTIVATE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program holds whole groups of one sample."""
    sample, first, c, wanted, p, inside = whole_groups(cut, BLOCK, CHANNELS, PIXELS, SLOTS)
    at = place(x, sample, c, p)
    mean, rest, reciprocal = read_statistics(statistics, sample, cut.groups, c // cut.per_group, wanted)
    factor, offset = factor_of(factors, sample, c, wanted), offset_of(factors, sample, c, wanted)
    n = tl.where(inside, normalised(x, at, inside, mean, rest, reciprocal), 0.0)
    du = inner_gradient(gradient, at, inside, n, factor, offset, ACTIVATE)
    plain, along = tl.sum(du, 1), tl.sum(du * n, 1)
    tl.store(sums + sample * cut.channels + c, plain, mask=wanted)
    tl.store(sums + (batch + sample) * cut.channels + c, along, mask=wanted)
    share = 1.0 / (1.0 * cut.per_group * cut.pixels)
    level = to_channels(of_slot(factor * plain, SLOTS) * share, CHANNELS)
    slope = to_channels(of_slot(factor * along, SLOTS) * share, CHANNELS)
    dx = du * factor[:, None] - level[:, None] - n * slope[:, None]
    tl.store(out + at, dx * reciprocal[:, None], mask=inside)


@triton.jit
def group_norm_sums_kernel(
    sums,  # float32 (2, parts, B, C)
    gradient,
    statistics,
    x,
    factors,
    cut,
    batch,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,  # a sample needs 64 bits
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,  # not needed here
):
    """One program adds up CHANNELS channels x `part` pixels."""
    sample, first, c, wanted, part_index = block_of_channels(cut, WIDE, CHANNELS)
    mean, rest, reciprocal = read_statistics(statistics, sample, cut.groups, c // cut.per_group, wanted)
    factor, offset = factor_of(factors, sample, c, wanted), offset_of(factors, sample, c, wanted)
    begin, end, lane, p = part_of_pixels(cut, part_index, WIDE, PIXELS)
    at = place(x, sample, c, p)
    plain, along = tl.zeros((CHANNELS, PIXELS), tl.float32), tl.zeros((CHANNELS, PIXELS), tl.float32)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        n = tl.where(inside, normalised(x, at, inside, mean, rest, reciprocal), 0.0)
        du = inner_gradient(gradient, at, inside, n, factor, offset, ACTIVATE)
        plain += du
        along += du * n
        at += PIXELS * x.pixel
    row = sums + (part_index * batch + sample) * cut.channels + c
    tl.store(row, tl.sum(plain, 1), mask=wanted)
    tl.store(row + cut.parts * batch * cut.channels, tl.sum(along, 1), mask=wanted)


@triton.jit
def means_of_groups(sums, factors, sample, group, end, batch, cut, PER_GROUP: tl.constexpr):
    """Means of du * f and du * f * n over each group that begins before the channel `end`; anything of others."""
    k, start = tl.arange(0, PER_GROUP), group * cut.per_group
    c = start[:, None] + k[None, :]
    wanted = (k < cut.per_group)[None, :] & (start < tl.minimum(end, cut.channels))[:, None]
    factor = factor_of(factors, sample, c, wanted)
    plain = tl.load(sums + sample * cut.channels + c, mask=wanted, other=0.0)
    along = tl.load(sums + (batch + sample) * cut.channels + c, mask=wanted, other=0.0)
    share = 1.0 / (1.0 * cut.per_group * cut.pixels)
    return tl.sum(factor * plain, 1) * share, tl.sum(factor * along, 1) * share


@triton.jit
def group_norm_gradient_kernel(
    out,
    sums,  # float32 (2, B, C)
    gradient,
    statistics,
    x,
    factors,
    cut,
    batch,
    ACTIVATE: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
    WHOLE: tl.constexpr,
    PER_GROUP: tl.constexpr,  # a power of two
):
    """One program writes the gradient of CHANNELS channels x `part` pixels."""
    sample, first, c, wanted, part_index = block_of_channels(cut, WIDE, CHANNELS)
    group = first // cut.per_group + tl.arange(0, SLOTS)
    level, slope = means_of_groups(sums, factors, sample, group, first + CHANNELS, batch, cut, PER_GROUP)
    member = members(c, wanted, cut.per_group, first // cut.per_group, SLOTS)
    level, slope = of_channel(level, member, WHOLE), of_channel(slope, member, WHOLE)
    mean, rest, reciprocal = read_statistics(statistics, sample, cut.groups, c // cut.per_group, wanted)
    factor, offset = factor_of(factors, sample, c, wanted), offset_of(factors, sample, c, wanted)
    begin, end, lane, p = part_of_pixels(cut, part_index, WIDE, PIXELS)
    at = place(x, sample, c, p)
    for start in range(begin, end, PIXELS):
        inside = wanted[:, None] & (start + lane < end)[None, :]
        n = normalised(x, at, inside, mean, rest, reciprocal)
        du = inner_gradient(gradient, at, inside, n, factor, offset, ACTIVATE)
        dx = du * factor[:, None] - level[:, None] - n * slope[:, None]
        tl.store(out + at, dx * reciprocal[:, None], mask=inside)
        at += PIXELS * x.pixel


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
    layout = layout_of(x)
    plan = plan_of(layout, groups, x.element_size(), HELD, OF_THREAD)
    cut = plan.cut(layout, groups)
    read = (gradient, statistics, map_of(x), factors_of(weight, bias, scale, shift), cut, layout.batch)
    tile = {"ACTIVATE": activate, **plan.compiled_in}
    with torch.cuda.device_of(x):
        if plan.slab:
            group_norm_silu_backward_kernel[(layout.batch * cut.blocks,)](
                out, sums, *read, BLOCK=plan.block, **tile
            )
            return
        tile["WIDE"], grid = layout.wide, (layout.batch * cut.blocks * cut.parts,)
        apart = sums.new_empty(2, cut.parts, *sums.shape[1:]) if cut.parts > 1 else sums
        group_norm_sums_kernel[grid](apart, *read, **tile)
        if cut.parts > 1:
            torch.sum(apart, 1, out=sums)
        tile |= {"WHOLE": plan.whole, "PER_GROUP": power(cut.per_group)}
        group_norm_gradient_kernel[grid](out, sums, *read, **tile)


register(
    "group_norm_silu_backward_triton(Tensor(a!) out, Tensor(b!) sums, Tensor gradient, Tensor statistics, "
    "Tensor x, Tensor? weight, Tensor? bias, Tensor? scale, Tensor? shift, int groups, bool activate) -> ()",
    launch,
)
