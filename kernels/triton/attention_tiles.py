"""Sizes of the tiles of the attention kernels, for each architecture, width of a head and type.

What fits was found by compiling: `python -m benchmarks.gpu_static` lists registers, spills and shared memory of
each. What is fastest nobody has timed.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Architectures that were compiled for; a device takes the highest that is not above its own.
ARCHITECTURES = (80, 89, 90, 100)


@dataclass(frozen=True)
class Tiles:
    """One choice.

    Attributes:
        M: rows that a program owns: queries, or keys in the kernel of dk and dv.
        N: rows of a tile that it walks over.
        CHUNK: columns of a head that one product sums over, at least 16.
        PIECE: columns that it writes.
        warps: warps of a program.
        stages: depth of the pipeline of loads.
    """

    M: int
    N: int
    CHUNK: int
    PIECE: int
    warps: int
    stages: int


def power_of_two(width: int) -> int:
    """The smallest power of two that a head of this width fits, at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def forward(architecture: int, width: int, size: int) -> Tiles:
    """Tiles of the forward kernel for elements of `size` bytes."""
    whole = power_of_two(width)
    if size == 2:
        if whole > 128:
            return Tiles(64, 64, 64, 256, 8, 2)
        return Tiles(128 if architecture >= 90 else 64, 64, whole, whole, 8 if whole == 128 else 4, 2)
    if whole > 64:
        return Tiles(64, 32, 32, 128, 8, 2)
    return Tiles(64, 32, whole, whole, 4, 1 if architecture == 89 else 2)


def backward(architecture: int, width: int, size: int) -> Tiles:
    """Tiles of the kernels of the gradient."""
    whole = power_of_two(width)
    if size == 2:
        if whole > 128:
            return Tiles(64, 64, 64, 128, 8, 2)
        return Tiles(64, 64, whole, whole, 8 if whole == 128 or architecture < 90 else 4, 2)
    if architecture < 90:  # 3 x TF32 on the older tensor cores holds all three products in registers
        return Tiles(32, 16, *((whole, whole) if whole <= 64 else (32, 32)), 4, 1)
    return Tiles(64, 32, whole, whole, 8, 1) if whole <= 64 else Tiles(64, 32, 32, 64, 8, 1)


def architecture_of(capability: int) -> int:
    """The architecture whose tiles a device of a capability (90 for sm_90) takes."""
    return max((one for one in ARCHITECTURES if one <= capability), default=ARCHITECTURES[0])
