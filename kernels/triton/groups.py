"""The groups of a group norm inside a kernel: which channels belong to one, sums over them, their statistics."""

from __future__ import annotations

import triton
import triton.language as tl

from .maps import unless_infinite


@triton.jit
def by_group(values, SLOTS: tl.constexpr):
    """(SLOTS, channels of a slot, pixels) of a tile (channels, pixels) of whole groups, a slot after the other."""
    return tl.reshape(values, (SLOTS, values.shape[0] // SLOTS, values.shape[1]))


@triton.jit
def over_slots(values):
    """Sums over the channels and pixels of each slot of `by_group`: first within a thread, then between threads."""
    return tl.sum(tl.sum(values, 1), 1)


@triton.jit
def both_sums(first, second):
    """Sums over the second dimension of two tensors, in one exchange between threads."""
    return tl.split(tl.sum(tl.join(first, second), 1))


@triton.jit
def mean_square(squares, mean):
    """The mean squared difference from a mean that is no more than a rounding, so that nothing is lost."""
    return tl.maximum(squares - mean * mean, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def members(c, wanted, per_group, first_group, SLOTS: tl.constexpr):
    """(channels, SLOTS): whether a channel belongs to group first_group + slot."""
    slot = c // per_group - first_group
    return (slot[:, None] == tl.arange(0, SLOTS)[None, :]) & wanted[:, None]


@triton.jit
def of_slot(values, SLOTS: tl.constexpr):
    """Sums over the channels of each slot, which has CHANNELS // SLOTS neighbouring ones."""
    return tl.sum(tl.reshape(values, (SLOTS, values.shape[0] // SLOTS)), 1)


@triton.jit
def to_channels(values, CHANNELS: tl.constexpr):
    """The value of each channel's slot."""
    SLOTS: tl.constexpr = values.shape[0]
    return tl.reshape(tl.broadcast_to(values[:, None], (SLOTS, CHANNELS // SLOTS)), (CHANNELS,))


@triton.jit
def of_group(values, member, WHOLE: tl.constexpr):
    """Sums over the channels of each slot; what is not a number stays in its group. WHOLE: see `group_plans.Plan`."""
    if WHOLE:
        sums = of_slot(values, member.shape[1])
    else:
        sums = tl.sum(tl.where(member, values[:, None], 0.0), 0)
    return sums


@triton.jit
def of_channel(values, member, WHOLE: tl.constexpr):
    """The value of each channel's slot."""
    if WHOLE:
        each = to_channels(values, member.shape[0])
    else:
        each = tl.sum(tl.where(member, values[None, :], 0.0), 1)
    return each


@triton.jit
def normal_sum(high, low):
    """high + low as a sum of two floats of which the second is no more than the rounding of the first (Knuth)."""
    joint = high + low
    back = joint - high
    return joint, (high - (joint - back)) + (low - back)


@triton.jit
def reciprocal_deviation(variance, eps):
    """1 / standard deviation of each group."""
    return 1.0 / tl.sqrt_rn(unless_infinite(variance) + eps)


@triton.jit
def write_statistics(statistics, sample, groups, group, mean, rest, reciprocal, mask):
    """Those of each group into statistics (B, G, 3): the mean as a sum of two floats, 1 / standard deviation."""
    row = statistics + (sample * groups + group) * 3
    tl.store(row, mean, mask=mask)
    tl.store(row + 1, rest, mask=mask)
    tl.store(row + 2, reciprocal, mask=mask)


@triton.jit
def read_statistics(statistics, sample, groups, group, mask):
    """(mean, rest, 1 / standard deviation) of each group."""
    row = statistics + (sample * groups + group) * 3
    mean = tl.load(row, mask=mask, other=0.0)
    rest = tl.load(row + 1, mask=mask, other=0.0)
    return mean, rest, tl.load(row + 2, mask=mask, other=0.0)
