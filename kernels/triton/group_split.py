"""The two launches of a group norm whose slab does not fit into registers: measure blocks, then join and apply.

The first may add up several maps as it measures them; then it writes their sum, which the second reads. Both take the
fields of `Terms` and `Factors` as arguments: triton 3.6 forgets what is constant in a tuple within a tuple at the first
branch or loop, unless the kernel has built it itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import Cut, Plan, block_of_channels, part_of_pixels
from .groups import (
    both_sums,
    mean_square,
    members,
    normal_sum,
    of_channel,
    of_group,
    reciprocal_deviation,
    write_statistics,
)
from .maps import Factors, Layout, Map, activated, factor_of, offset_of, place
from .sums import Terms, finished, loaded, places


@triton.jit
def group_norm_partial_kernel(
    partials,  # float32 (B, G, 3, overlaps, parts): mean, its rest, squared differences from it
    total,
    x,
    add,
    residual,
    residual_add,
    x2,
    own_channels,
    cut,
    WIDE: tl.constexpr,  # a sample needs 64 bits
    AFTER: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """One program measures CHANNELS channels x `part` pixels, a running mean in every lane (Welford 1962)."""
    terms = Terms(x, add, residual, residual_add, x2, own_channels)
    sample, first, c, wanted, part_index = block_of_channels(cut, WIDE, CHANNELS)
    begin, end, lane, p = part_of_pixels(cut, part_index, WIDE, PIXELS)
    x_at, r_at, x2_at = places(terms, sample, c, p)
    total_at = place(total, sample, c, p)
    inside = wanted[:, None] & (p < end)[None, :]
    values = loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER)
    if total.data is not None:
        tl.store(total.data + total_at, values, mask=inside)
    pivot = tl.sum(values, 1) / tl.minimum(end - begin, PIXELS)
    mean = tl.where(inside, values - pivot[:, None], 0.0)
    squares = tl.zeros((CHANNELS, PIXELS), tl.float32)
    seen = 1.0
    for start in range(begin + PIXELS, end, PIXELS):
        x_at += PIXELS * terms.x.pixel
        r_at += PIXELS * terms.residual.pixel
        x2_at += PIXELS * terms.x2.pixel
        total_at += PIXELS * total.pixel
        inside = wanted[:, None] & (start + lane < end)[None, :]
        values = loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER)
        if total.data is not None:
            tl.store(total.data + total_at, values, mask=inside)
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
    member = members(c, wanted, cut.per_group, first // cut.per_group, SLOTS)
    held = tl.maximum(of_group(tl.where(wanted, 1.0, 0.0), member, WHOLE), 1.0)
    high = of_group(pivot, member, WHOLE) / held
    apart = tl.where(wanted, (pivot - of_channel(high, member, WHOLE)) + of_lane, 0.0)
    low = of_group(apart, member, WHOLE) / held
    apart = tl.where(wanted, apart - of_channel(low, member, WHOLE), 0.0)
    squares_of_group = of_group(squares_of_channel + length * (apart * apart), member, WHOLE)
    high, low = normal_sum(high, low)

    group = first // cut.per_group + tl.arange(0, SLOTS)
    real = (group < cut.groups) & (group * cut.per_group < first + CHANNELS)
    overlap = first // CHANNELS - group * cut.per_group // CHANNELS
    plane = cut.overlaps * cut.parts
    row = partials + (sample * cut.groups + group) * 3 * plane + overlap * cut.parts + part_index
    tl.store(row, high, mask=real)
    tl.store(row + plane, low, mask=real)
    tl.store(row + 2 * plane, squares_of_group, mask=real)


@triton.jit
def joined(partials, sample, group, cut, CHANNELS: tl.constexpr, ENTRIES: tl.constexpr):
    """(mean, rest of the mean, variance) of the groups, joined from all partials (Chan et al. 1979)."""
    entry = tl.arange(0, ENTRIES)
    real = (group < cut.groups)[:, None] & (entry < cut.overlaps * cut.parts)[None, :]
    start = group * cut.per_group
    block = (start // CHANNELS)[:, None] + (entry // cut.parts)[None, :]
    width = tl.minimum((block + 1) * CHANNELS, (start + cut.per_group)[:, None])
    width = tl.minimum(width, cut.channels) - tl.maximum(block * CHANNELS, start[:, None])
    length = tl.minimum(cut.pixels - entry % cut.parts * cut.part, cut.part)
    real = real & (width > 0)
    count = tl.where(real, width * length[None, :].to(tl.float32), 0.0)
    plane = cut.overlaps * cut.parts
    row = partials + ((sample * cut.groups + group) * 3 * plane)[:, None] + entry[None, :]
    high = tl.load(row, mask=real, other=0.0)
    low = tl.load(row + plane, mask=real, other=0.0)
    squares = tl.load(row + 2 * plane, mask=real, other=0.0)
    share = 1.0 / (1.0 * cut.per_group * cut.pixels)
    mean = tl.sum(count * high, 1) * share
    apart = tl.where(real, (high - mean[:, None]) + low, 0.0)
    rest, squares = both_sums(count * apart, squares + count * (apart * apart))
    rest *= share
    return mean, rest, mean_square(squares * share, rest)


@triton.jit
def group_norm_apply_kernel(
    out,
    statistics,
    partials,
    x,  # and the other terms of s; s itself where the first launch has written it
    add,
    residual,
    residual_add,
    x2,
    own_channels,
    weight,
    bias,
    scale,
    shift,
    cut,
    eps,
    ACTIVATE: tl.constexpr,
    AFTER: tl.constexpr,
    WIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """One program joins what was measured of its groups and writes CHANNELS channels x `part` pixels."""
    terms = Terms(x, add, residual, residual_add, x2, own_channels)
    factors = Factors(weight, bias, scale, shift)
    sample, first, c, wanted, part_index = block_of_channels(cut, WIDE, CHANNELS)
    factor, offset = factor_of(factors, sample, c, wanted), offset_of(factors, sample, c, wanted)
    group = first // cut.per_group + tl.arange(0, SLOTS)
    mean, rest, variance = joined(partials, sample, group, cut, CHANNELS, ENTRIES)
    reciprocal = reciprocal_deviation(variance, eps)
    start = group * cut.per_group
    starts_here = (group < cut.groups) & (start >= first) & (start < first + CHANNELS)
    if part_index == 0:
        write_statistics(statistics, sample, cut.groups, group, mean, rest, reciprocal, starts_here)

    member = members(c, wanted, cut.per_group, first // cut.per_group, SLOTS)
    high = of_channel(mean, member, WHOLE)[:, None]
    factor *= of_channel(reciprocal, member, WHOLE)
    offset -= of_channel(rest, member, WHOLE) * factor
    begin, end, lane, p = part_of_pixels(cut, part_index, WIDE, PIXELS)
    x_at, r_at, x2_at = places(terms, sample, c, p)
    out_at = place(out, sample, c, p)
    for first_pixel in range(begin, end, PIXELS):
        inside = wanted[:, None] & (first_pixel + lane < end)[None, :]
        values = loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER)
        y = activated((values - high) * factor[:, None] + offset[:, None], ACTIVATE)
        y = finished(y, terms, r_at, sample, c, wanted, inside, AFTER)
        tl.store(out.data + out_at, y, mask=inside)
        x_at += PIXELS * terms.x.pixel
        r_at += PIXELS * terms.residual.pixel
        out_at += PIXELS * out.pixel


def measured(total: Map, terms: Terms, layout: Layout, cut: Cut, plan: Plan, after: bool) -> Tensor:
    """Partials of every block and part; writes the sum into `total`, where that is given."""
    shape = (layout.batch, cut.groups, 3, cut.overlaps, cut.parts)
    partials = torch.empty(shape, dtype=torch.float32, device=terms.x.data.device)
    group_norm_partial_kernel[(layout.batch * cut.blocks * cut.parts,)](
        *(partials, total, *terms, cut), WIDE=layout.wide, AFTER=after, WHOLE=plan.whole, **plan.compiled_in
    )
    return partials
