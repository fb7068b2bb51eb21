"""How a group norm is cut into programs; depends on one sample's shape and type alone, never on the batch.

*Slab*: a program holds whole groups (channels innermost: as many neighbouring groups as fill sectors of 32 bytes),
reads them once and writes them once; a group's lanes are a power of two, of which the last may be idle. *Split*:
programs measure blocks of channels x stretches of pixels, then a second launch joins what they found and applies it.
Blocks need not hold whole groups, so C = 320 with 32 groups is cut into blocks of 64 bytes and no lane is idle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl

from .maps import Layout, power


class Cut(NamedTuple):
    """The sizes of a sample and of its pieces, as kernels take them: see `Plan`."""

    channels: int
    pixels: int
    groups: int
    per_group: int
    blocks: int
    overlaps: int
    parts: int
    part: int


class Plan(NamedTuple):
    """Sizes of the programs; `channels`, `pixels`, `slots` and `entries` are powers of two.

    Attributes:
        slab: one launch.
        block: channels of a program (the rest of `channels` is padding).
        channels: channels of a tile.
        pixels: pixels of a tile.
        slots: groups that a block may touch.
        whole: each slot has channels // slots neighbouring lanes, so that nobody has to ask which channel is whose.
        overlaps: blocks that a group may touch.
        part: pixels of a program.
        entries: overlaps * parts of a sample, at least.
        warps: of a program.
    """

    slab: bool
    block: int
    channels: int
    pixels: int
    slots: int
    whole: bool
    overlaps: int
    part: int
    entries: int
    warps: int

    def blocks(self, layout: Layout) -> int:
        """Blocks of channels of a sample."""
        return -(-layout.channels // self.block)

    def parts(self, layout: Layout) -> int:
        """Stretches of pixels of a sample."""
        return -(-layout.pixels // self.part)

    @property
    def compiled_in(self) -> dict[str, int]:
        """What a kernel is compiled for: a program's tile, and its warps."""
        return {
            "CHANNELS": self.channels,
            "PIXELS": self.pixels,
            "SLOTS": self.slots,
            "num_warps": self.warps,
        }

    def cut(self, layout: Layout, groups: int) -> Cut:
        """The sizes that kernels take."""
        of_sample = (layout.channels, layout.pixels, groups, layout.channels // groups)
        return Cut(*of_sample, self.blocks(layout), self.overlaps, self.parts(layout), self.part)


@triton.jit
def whole_groups(cut, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, SLOTS: tl.constexpr):
    """(sample, first channel, channels, which exist, pixels, which elements exist) of a program with a slab.

    A group takes a slot of CHANNELS // SLOTS lanes, a power of two, of which the last may be idle.
    """
    program = tl.program_id(0)
    sample, first = (program // cut.blocks).to(tl.int64), program % cut.blocks * BLOCK
    lane, p = tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    c = first + lane
    wanted = c < cut.channels
    if CHANNELS != BLOCK:
        PER_GROUP: tl.constexpr = BLOCK // SLOTS
        of_slot = lane % (CHANNELS // SLOTS)
        c = first + lane // (CHANNELS // SLOTS) * PER_GROUP + of_slot
        wanted = (of_slot < PER_GROUP) & (c < cut.channels)
    return sample, first, c, wanted, p, wanted[:, None] & (p < cut.pixels)[None, :]


@triton.jit
def block_of_channels(cut, WIDE: tl.constexpr, CHANNELS: tl.constexpr):
    """(sample, first channel, channels, which exist, part) of a program that has a part of the pixels."""
    program = tl.program_id(0)
    index, part_index = program // cut.parts, program % cut.parts
    sample, first = (index // cut.blocks).to(tl.int64), index % cut.blocks * CHANNELS
    c = first + tl.arange(0, CHANNELS)
    c = c.to(tl.int64) if WIDE else c
    return sample, first, c, c < cut.channels, part_index


@triton.jit
def part_of_pixels(cut, part_index, WIDE: tl.constexpr, PIXELS: tl.constexpr):
    """(begin, end, lanes, the first PIXELS pixels) of a part."""
    begin = part_index * cut.part
    lane = tl.arange(0, PIXELS)
    return (
        begin,
        tl.minimum(begin + cut.part, cut.pixels),
        lane,
        (begin.to(tl.int64) if WIDE else begin) + lane,
    )


def plan_of(layout: Layout, groups: int, size: int, held: int, of_thread: int) -> Plan:
    """The plan of a map of elements of `size` bytes; a slab has at most `held` elements, `of_thread` of each thread."""
    per_group = layout.channels // groups
    return _slab(layout, per_group, size, held, of_thread) or _split(layout, per_group, size)


def _slab(layout: Layout, per_group: int, size: int, held: int, of_thread: int) -> Plan | None:
    lanes, pixels = power(per_group), power(layout.pixels)
    most = held if lanes == per_group or not layout.last else max(held // 2, ALIGNED)
    slots = 1
    if layout.last:
        wanted = _neighbours(lanes * pixels, size * per_group, min(most, ALIGNED))
        slots = min(power(layout.channels // per_group), wanted)
    channels = slots * lanes
    if channels * pixels > most or layout.wide:
        return None
    warps = min(16, max(1, channels * pixels // (32 * of_thread)))
    return Plan(True, slots * per_group, channels, pixels, slots, True, 1, pixels, 1, warps)


def _neighbours(elements: int, size: int, most: int) -> int:
    """Groups of a slab that has its channels last: a sector at least, and whole ones where that is not too many.

    Args:
        elements: of a group's tile.
        size: bytes of a group's channels.
        most: elements of a slab that begins and ends with a sector.
    """
    aligned = 32 // math.gcd(32, size)
    return aligned if aligned * elements <= most else power(-(-32 // size))


#: Elements of a slab up to which it has more groups than fill a sector, so that it begins and ends with whole ones.
#: A slab with idle lanes may have as many, or half of `held`: larger ones took longer than two launches on an H100.
ALIGNED = 8192


def _split(layout: Layout, per_group: int, size: int) -> Plan:
    block = _block(layout, size)
    pixels = max(1, 2048 // block)
    whole = block > 1
    if per_group % block == 0:
        slots, overlaps = 1, per_group // block
    elif block % per_group == 0:
        slots, overlaps = block // per_group, 1
    else:
        slots, overlaps = (block - 2) // per_group + 2, (per_group - 2) // block + 2
        slots, whole = power(slots), False
    # Four tiles a program, or two where a sample has few programs; and what a program reads of the others grows with
    # their number, what it reads of x shrinks.
    tiles = layout.pixels / pixels
    wanted = max(tiles / 4, min(tiles / 2, PROGRAMS * block / layout.channels))
    most = (0.04 * layout.pixels * block * size / (slots * overlaps)) ** 0.5
    parts = max(1, min(int(wanted), int(most), 2048 // (slots * power(overlaps))))
    part = -(-layout.pixels // parts)
    part = -(-part // pixels) * pixels
    entries = power(overlaps * -(-layout.pixels // part))
    return Plan(False, block, block, pixels, slots, whole, overlaps, part, entries, 4)


#: Programs of a sample from which on each has four tiles.
PROGRAMS = 64


def _block(layout: Layout, size: int) -> int:
    """Channels of a block: two sectors, 64 bytes, without padding where C has such a divisor."""
    if not layout.last:
        return 1
    divisor = layout.channels & -layout.channels
    return min(64 // size, divisor if divisor * size >= 32 else power(layout.channels))
