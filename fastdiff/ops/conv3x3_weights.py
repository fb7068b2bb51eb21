"""Weights of conv3x3: the algorithms, how a weight is packed for each, and which one suits a shape.

A Winograd algorithm F(m, 3) computes tiles of m x m outputs from (m + 2)^2 transformed inputs and as many transformed
weights: 2.25 (m = 2) or 4 (m = 4) times fewer multiplications than the direct sum. Its transformed weights
take 1.78 or 4 times the memory of the weight. "f43-lean" is F(4, 3) whose weights are transformed in every call: they
are read from memory as they are, which is less memory and, where there are few tiles, less time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import extension
from .arguments import check_tensor, described
from .convolution_inputs import check_data
from .packed_memory import packed_memory

ALGORITHMS = ("direct", "f23", "f43", "f43-lean")
#: Outputs along one side of a tile.
TILE = {"direct": 1, "f23": 2, "f43": 4, "f43-lean": 4}
#: The tile for which the weight is packed; weights packed for 1 are transformed in every call.
_PACKED_TILE = {**TILE, "f43-lean": 1}
#: Most tiles of one stretch of statistics in a row of tiles; it is four rows of outputs high.
_STRETCH_TILES = 16


#: Algorithms whose packed weights take at most twice the weight's memory.
_LOW_MEMORY = ("direct", "f23", "f43-lean")
#: Measured on 2 cores with AVX-512: products a second and thread, bytes a second from memory, seconds per transformed
#: filter and thread, tiles for which one transform serves.
_FLOPS, _BYTES, _TRANSFORM, _LEAN_TILES = 1.3e11, 3.5e10, 4.1e-9, 32
#: What the choice that is the same for every batch is made for.
_USUAL_BATCH, _USUAL_THREADS = 4, 2


class PackedWeight(NamedTuple):
    """A weight of `conv3x3`, made ready once for many calls.

    Attributes:
        weight: (Cout, Cin, 3, 3), as it was given.
        data: what the C++ kernels read; None where they are not, or where the weight is not theirs.
        algorithm: one of `ALGORITHMS`.
    """

    weight: Tensor
    data: Tensor | None
    algorithm: str


def check_algorithm(place: str, algorithm: str, *more: str) -> None:
    """A `ValueError` unless algorithm is known."""
    known = (*ALGORITHMS, *more)
    if algorithm not in known:
        raise ValueError(f"{place}: algorithm must be one of {', '.join(known)}, got {algorithm!r}")


def check_weight(place: str, weight: Any) -> None:
    """An error in words unless weight is a float32 or float64 (Cout, Cin, 3, 3)."""
    check_tensor(place, "weight", weight)
    if weight.dim() != 4 or weight.shape[2:] != (3, 3) or 0 in weight.shape or weight.is_complex():
        raise ValueError(f"{place}: weight must be (Cout, Cin, 3, 3), got {described(weight)}")


def check_packed(place: str, packed: PackedWeight) -> None:
    """A `ValueError` unless the data belong to a weight of this shape, packed for this algorithm."""
    outs, channels = packed.weight.shape[:2]
    floats = torch.ops.fastdiff.conv3x3_packed_floats(_PACKED_TILE[packed.algorithm], outs, channels)
    check_data(place, packed.data, floats)


def pack(weight: Tensor, algorithm: str) -> PackedWeight:
    """Make a weight ready for `conv3x3`.

    Args:
        weight: (Cout, Cin, 3, 3) float32.
        algorithm: one of `ALGORITHMS`, for example what `choose` says.

    Returns:
        The packed weight. It does not follow later changes of the weight.

    Raises:
        TypeError: weight is not a tensor.
        ValueError: weight has another shape, or the algorithm is not known.
    """
    check_algorithm("conv3x3.pack", algorithm)
    check_weight("conv3x3.pack", weight)
    if extension.MISSING or not weight.is_cpu or weight.dtype != torch.float32:
        return PackedWeight(weight, None, algorithm)
    tile, (outs, channels) = _PACKED_TILE[algorithm], weight.shape[:2]
    data = packed_memory(torch.ops.fastdiff.conv3x3_packed_floats(tile, outs, channels))
    torch.ops.fastdiff.conv3x3_pack_cpp.default(data, weight.detach(), tile)
    return PackedWeight(weight, data, algorithm)


def choose(
    batch: int | None,
    in_channels: int,
    out_channels: int,
    height: int,
    width: int,
    threads: int | None = None,
    memory: str = "default",
) -> str:
    """The algorithm that is fastest for a shape.

    Args:
        batch: B; None for a choice that is the same for every batch and number of threads, so that a sample's result
            does not depend on what is computed beside it.
        in_channels: Cin, of both inputs together.
        out_channels: Cout.
        height: H of the output.
        width: W of the output.
        threads: number of threads; None for torch's.
        memory: "default", or "low" for transformed weights of at most twice the weight's size.

    Returns:
        One of `ALGORITHMS`.

    Raises:
        ValueError: memory is neither.
    """
    if memory not in ("default", "low"):
        raise ValueError(f"conv3x3.choose: memory must be 'default' or 'low', got {memory!r}")
    if batch is None:
        batch, threads = _USUAL_BATCH, _USUAL_THREADS
    elif threads is None:
        threads = torch.get_num_threads()
    filters = in_channels * out_channels
    return min(
        ALGORITHMS if memory == "default" else _LOW_MEMORY,
        key=lambda name: _seconds(name, batch * _tiles(name, height, width), filters, threads),
    )


def _tiles(algorithm: str, height: int, width: int) -> int:
    return -(-height // TILE[algorithm]) * -(-width // TILE[algorithm])


def _seconds(algorithm: str, tiles: int, filters: int, threads: int) -> float:
    """Predicted time: products, weights from memory, and their transform where it is done in the call.

    It leaves out what the algorithms have in common; docs/lab/conv3x3.md holds it against measured times.
    """
    tile = TILE[algorithm]
    products = 9 if tile == 1 else (tile + 2) ** 2
    lean, passes = algorithm == "f43-lean", 0
    if lean:
        passes = 1 if tiles < threads * _LEAN_TILES else tiles // _LEAN_TILES
    multiplied = 2 * products * tiles * filters / (_FLOPS * threads)
    read = 4 * (9 if lean else products) * filters / _BYTES
    return multiplied + read + passes * filters * _TRANSFORM / threads


def stretches(algorithm: str, height: int, width: int) -> int:
    """Number P of stretches over which the C++ backend takes statistics of an output (B, Cout, height, width)."""
    check_algorithm("conv3x3.stretches", algorithm)
    return -(-height // 4) * -(-width // (TILE[algorithm] * _STRETCH_TILES))
