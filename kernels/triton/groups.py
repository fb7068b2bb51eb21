"""The groups of a group norm inside a kernel: which channels belong to one, sums over them, their statistics."""

from __future__ import annotations

import triton
import triton.language as tl

from .maps import unless_infinite


@triton.jit
def members(c, wanted, per_group, first_group, SLOTS: tl.constexpr):
    """(channels, SLOTS): whether a channel belongs to group first_group + slot."""
    slot = c // per_group - first_group
    return (slot[:, None] == tl.arange(0, SLOTS)[None, :]) & wanted[:, None]


@triton.jit
def of_group(values, member):
    """Sums over the channels of each slot; what is not a number stays in its group."""
    return tl.sum(tl.where(member, values[:, None], 0.0), 0)


@triton.jit
def of_channel(values, member):
    """The value of each channel's slot."""
    return tl.sum(tl.where(member, values[None, :], 0.0), 1)


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
