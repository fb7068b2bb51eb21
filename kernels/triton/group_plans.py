"""How a group norm is cut into programs; depends on one sample's shape and type alone, never on the batch.

*Slab*: a program holds whole groups (channels innermost: as many neighbouring groups as fill a sector of 32 bytes),
reads them once and writes them once. *Split*: programs measure blocks of channels x stretches of pixels, then a second
launch joins what they found and applies it. Blocks need not hold whole groups, so C = 320 with 32 groups is cut into
blocks of 64 channels and no lane is idle.
"""

from __future__ import annotations

from typing import NamedTuple

from .maps import Map, power


class Plan(NamedTuple):
    """Sizes of the programs; `channels`, `pixels`, `slots` and `entries` are powers of two.

    Attributes:
        slab: one launch.
        block: channels of a program (the rest of `channels` is padding).
        channels: channels of a tile.
        pixels: pixels of a tile.
        slots: groups that a block may touch.
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
    overlaps: int
    part: int
    entries: int
    warps: int

    def blocks(self, layout: Map) -> int:
        """Blocks of channels of a sample."""
        return -(-layout.channels // self.block)

    def parts(self, layout: Map) -> int:
        """Stretches of pixels of a sample."""
        return -(-layout.pixels // self.part)


def plan_of(layout: Map, groups: int, size: int, held: int, of_thread: int) -> Plan:
    """The plan of a map of elements of `size` bytes; a slab has at most `held` elements, `of_thread` of each thread."""
    per_group = layout.channels // groups
    return _slab(layout, per_group, size, held, of_thread) or _split(layout, per_group, size)


def _slab(layout: Map, per_group: int, size: int, held: int, of_thread: int) -> Plan | None:
    channels, pixels = power(per_group), power(layout.pixels)
    block = per_group
    if layout.last:
        channels = block = max(channels, 32 // size)
    if channels * pixels > held or (layout.last and power(per_group) != per_group):
        return None
    warps = min(16, max(1, channels * pixels // (32 * of_thread)))
    return Plan(True, block, channels, pixels, channels // per_group or 1, 1, pixels, 1, warps)


def _split(layout: Map, per_group: int, size: int) -> Plan:
    block = _block(layout, size)
    pixels = max(1, 2048 // block)
    if per_group % block == 0:
        slots, overlaps = 1, per_group // block
    elif block % per_group == 0:
        slots, overlaps = block // per_group, 1
    else:
        slots, overlaps = (block - 2) // per_group + 2, (per_group - 2) // block + 2
    slots = power(slots)
    # What a program reads of the others grows with their number, what it reads of x shrinks.
    most = int((0.04 * layout.pixels * block * size / (slots * overlaps)) ** 0.5)
    parts = max(1, min(most, 2048 // (slots * power(overlaps))))
    part = -(-layout.pixels // parts)
    part = -(-part // pixels) * pixels
    entries = power(overlaps * -(-layout.pixels // part))
    return Plan(False, block, block, pixels, slots, overlaps, part, entries, 4)


def _block(layout: Map, size: int) -> int:
    """Channels of a block: a line of 128 bytes, without padding where C has such a divisor."""
    if not layout.last:
        return 1
    divisor = layout.channels & -layout.channels
    return min(128 // size, divisor if divisor * size >= 32 else power(layout.channels))
