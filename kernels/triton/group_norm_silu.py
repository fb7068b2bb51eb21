"""group_norm_silu: one read and one write where a slab fits into registers, else measured and applied in two launches.

A mean is a sum of two floats: means far from 0 keep their digits. Variances are sums of squared differences from the
first of the two, or from the mean of each part, joined by Chan's formula; nothing is added atomically. What is
normalised may be a sum of maps, which is written out where others read it, too. See `fastdiff.ops.group_norm_silu`,
`group_plans` and `sums`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import triton
import triton.language as tl

from .group_plans import Plan, plan_of, whole_groups
from .group_split import group_norm_apply_kernel, measured
from .groups import both_sums, by_group, mean_square, over_slots, reciprocal_deviation, write_statistics
from .launching import register
from .maps import Layout, activated, factor_of, factors_of, map_of, offset_of, place
from .sums import finished, loaded, places, sums_taken, terms_of


@triton.jit
def group_norm_silu_kernel(
    out,  # a map
    total,  # a map: where s, which is normalised, is written, or none
    statistics,  # float32 (B, G, 3), see `groups`
    terms,
    factors,
    cut,
    eps,
    BLOCK: tl.constexpr,  # channels of a program, whole groups
    ACTIVATE: tl.constexpr,
    AFTER: tl.constexpr,  # the residual is added to the result
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """One program normalises whole groups of one sample."""
    sample, first, c, wanted, p, inside = whole_groups(cut, BLOCK, CHANNELS, PIXELS, SLOTS)
    x_at, r_at, x2_at = places(terms, sample, c, p)
    values = loaded(terms, x_at, r_at, x2_at, sample, c, wanted, inside, AFTER)
    factor = tl.reshape(factor_of(factors, sample, c, wanted), (SLOTS, CHANNELS // SLOTS))
    offset = tl.reshape(offset_of(factors, sample, c, wanted), (SLOTS, CHANNELS // SLOTS))
    if total.data is not None:
        tl.store(total.data + place(total, sample, c, p), values, mask=inside)

    share = 1.0 / (1.0 * cut.per_group * cut.pixels)
    values = by_group(values, SLOTS)
    mean = over_slots(values) * share
    apart = tl.where(by_group(inside, SLOTS), values - mean[:, None, None], 0.0)
    rest, squares = both_sums(tl.sum(apart, 1), tl.sum(apart * apart, 1))
    rest *= share
    reciprocal = reciprocal_deviation(mean_square(squares * share, rest), eps)

    group = first // cut.per_group + tl.arange(0, SLOTS)
    own = (group < cut.groups) & (group * cut.per_group < first + BLOCK)
    write_statistics(statistics, sample, cut.groups, group, mean, rest, reciprocal, own)
    factor *= reciprocal[:, None]
    offset -= rest[:, None] * factor
    y = apart * factor[:, :, None] + offset[:, :, None]
    y = tl.reshape(activated(y, ACTIVATE), (CHANNELS, PIXELS))
    y = finished(y, terms, r_at, sample, c, wanted, inside, AFTER)
    tl.store(out.data + place(out, sample, c, p), y, mask=inside)


#: Elements that a program may hold, and those of a thread.
HELD, OF_THREAD = 32768, 32
#: The same where sums are taken: more is in flight, and maps of two memory orders pass through shared memory.
HELD_OF_SUMS, OF_THREAD_OF_SUMS = 16384, 16


def launch(out: Tensor, statistics: Tensor, x: Tensor, *given: Any) -> None:
    """Write y into out, which lies like x, and the statistics (B, G, 3); see `fastdiff.ops.group_norm_silu`."""
    launch_sums(out, None, statistics, x, None, None, None, None, *given, False)


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
    if out.numel() == 0:
        return
    terms, factors = terms_of(x, add, residual, residual_add, x2), factors_of(weight, bias, scale, shift)
    layout, sums = sums_taken(x, out, terms)
    plan = plan_for(layout, groups, x.element_size(), sums)
    cut, tile = plan.cut(layout, groups), {"ACTIVATE": activate, "AFTER": after, **plan.compiled_in}
    with torch.cuda.device_of(x):
        if plan.slab:
            group_norm_silu_kernel[(layout.batch * cut.blocks,)](
                *(map_of(out), map_of(total), statistics, terms, factors, cut, eps), BLOCK=plan.block, **tile
            )
            return
        if total is None and terms.several(after):
            total = torch.empty_like(x if x2 is None else out)
        tile["WHOLE"] = plan.whole
        partials = measured(map_of(total), terms, layout, cut, plan, after)
        terms = terms if total is None else terms.once_written(total, after)
        group_norm_apply_kernel[(layout.batch * cut.blocks * cut.parts,)](
            *(map_of(out), statistics, partials, *terms, *factors, cut, eps),
            WIDE=layout.wide,
            ENTRIES=plan.entries,
            **tile,
        )


def plan_for(layout: Layout, groups: int, size: int, sums: bool) -> Plan:
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
