"""Seeds and the noise that belongs to them.

Every sample has its own 64-bit seed, and its noise depends on that seed, the row of the table and the stream alone:
not on the batch, the order, the memory format or the number of processes. `fastdiff.ops.philox` defines the generator.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor

from fastdiff.ops import normal as _normal
from fastdiff.ops import philox
from fastdiff.ops.philox import Stream

__all__ = ["Stream", "normal", "parse_seeds", "seed_list", "seed_tensor", "uniform"]

Seeds = Tensor | Sequence[int]
_LIMIT = 1 << 64


def parse_seeds(text: str) -> list[int]:
    """Seeds written as numbers and inclusive ranges: `"0-3,7"` is [0, 1, 2, 3, 7].

    Raises:
        ValueError: when a part is neither a number nor a rising range.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise ValueError(f"parse_seeds: text must be numbers and ranges such as '0-3,7', got {text!r}")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start:
            raise ValueError(f"parse_seeds: a range must rise, got {part.strip()!r}")
        seeds.extend(_checked(range(start, stop + 1), "parse_seeds"))
    return seeds


def seed_list(seed: int, num: int, seeds: Seeds | None = None) -> Sequence[int]:
    """The seeds of `num` samples: `seed ... seed + num - 1`, or the given ones.

    Args:
        seed: First seed, 0 <= seed < 2^64.
        num: How many, >= 1. Must equal the number of `seeds` when those are given.
        seeds: Explicit seeds instead; duplicates are allowed.

    Raises:
        TypeError: for seeds that are no integers, or that have no order.
        ValueError: for a count or a seed out of range.
    """
    if seeds is None:
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise ValueError(f"seeds: num must be an integer >= 1, got {num!r}")
        return _checked(range(_integer(seed), _integer(seed) + num), "seeds")
    if not hasattr(seeds, "__iter__") or isinstance(seeds, Set | Mapping):  # a set has no order
        raise TypeError(f"seeds: seeds must be integers, a list of them, got {type(seeds).__name__}")
    given = _int64(seeds).tolist() if isinstance(seeds, Tensor) else seeds
    values = [s % _LIMIT for s in given] if isinstance(seeds, Tensor) else [_integer(s) for s in given]
    if not values or len(values) != num:
        raise ValueError(f"seeds: seeds must have num = {num} entries and at least one, got {len(values)}")
    return _checked(values, "seeds")


def seed_tensor(
    seed: int = 0, num: int = 1, seeds: Seeds | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """`seed_list` as an int64 tensor (num,); seeds from 2^63 on keep their 64 bits and read as negative."""
    values = [s - _LIMIT if s >= _LIMIT // 2 else s for s in seed_list(seed, num, seeds)]
    return torch.tensor(values, dtype=torch.int64, device=device)


def normal(
    seeds: Seeds,
    shape: Sequence[int],
    *,
    row: int | Tensor = 0,
    stream: int = Stream.INITIAL,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise, one independent sample per seed.

    Args:
        seeds: (B,) int64 tensor or a sequence of integers.
        shape: Shape of one sample, for example (C, H, W).
        row: Row of the step table the noise belongs to, or (B,) of them.
        stream: What the noise is for, see `Stream`.
        device: Where the result lives; None keeps the seeds' device.
        dtype: float32 or float64.

    Returns:
        (B, *shape) contiguous tensor.
    """
    return _normal(_as_tensor(seeds, device), shape, row=row, stream=stream, dtype=dtype)


def uniform(
    seeds: Seeds,
    shape: Sequence[int],
    *,
    row: int | Tensor = 0,
    stream: int = Stream.TIME,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform numbers in (0, 1), one independent sample per seed; arguments as `normal`."""
    tensor = _as_tensor(seeds, device)
    return philox.uniform(tensor, math.prod(shape), row=row, stream=stream, dtype=dtype).reshape(-1, *shape)


def _as_tensor(seeds: Seeds, device: torch.device | str | None) -> Tensor:
    if isinstance(seeds, Tensor):
        return _int64(seeds).to(device=device or seeds.device)
    values = list(seeds)
    return seed_tensor(num=len(values), seeds=values, device=device)


def _int64(seeds: Tensor) -> Tensor:
    """Seeds as a tensor, where they are the bits of 64-bit numbers."""
    if seeds.dtype != torch.int64 or seeds.ndim != 1:
        raise TypeError(f"seeds: seeds must be int64 (num,), got {seeds.dtype} {tuple(seeds.shape)}")
    return seeds


def _integer(seed: object) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seeds: a seed must be an integer, got {seed!r}")
    return int(seed.__index__())


def _checked(values: Sequence[int], place: str) -> Sequence[int]:
    ends = (
        (values[0], values[-1]) if isinstance(values, range) else values
    )  # a long range is not walked through
    if min(ends) < 0 or max(ends) >= _LIMIT:
        raise ValueError(f"{place}: seeds must be in [0, 2^64), got {min(ends)} ... {max(ends)}")
    return values
