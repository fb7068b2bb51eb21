"""Counter-based noise, in plain torch: the definition that every backend reproduces.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Element ``i`` of the
sample with 64-bit seed ``S``, in row ``k`` and stream ``r``, comes from

    key     = (low word of S, high word of S)
    counter = (low word of i // 4, k, r, high word of i // 4)

The four output words make four uniform numbers ``u = ((word >> 9) + 1/2) * 2**-23``, exact in float32 and never
0 or 1, and two Box-Muller pairs ``sqrt(-2 ln u0) * (cos 2 pi u1, sin 2 pi u1)``. Nothing else enters: the noise
of a sample does not depend on the batch, the order, the memory format, the number of processes or the device.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Stream(IntEnum):
    """What a noise is for; numbers of one seed and row in different streams are independent."""

    INITIAL = 0
    SOLVER = 1
    FORWARD = 2
    CHURN = 3
    TIME = 4
    OFFSET = 5
    KNOWN = 6
    LABEL_DROP = 7
    FLIP = 8
    SELF_COND = 9


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32-bit word of ``word * constant``, in int64 without overflow (16-bit halves)."""
    upper, lower = word >> 16, word & 0xFFFF
    low_part = lower * constant
    middle = upper * constant + (low_part >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low_part & 0xFFFF)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Ten rounds of Philox4x32 on words held in int64 tensors that broadcast against each other.

    Args:
        counter: four int64 tensors of values in [0, 2**32).
        key: two int64 tensors of values in [0, 2**32).

    Returns:
        Four int64 tensors of values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def _words(seeds: Tensor, count: int, row: int | Tensor, stream: int | Tensor) -> Tensor:
    """The words of elements 0 … 4*ceil(count/4) - 1 as (B, ceil(count/4), 4) int64."""
    if seeds.dtype != torch.int64 or seeds.dim() != 1:
        raise TypeError(
            f"philox: seeds must be an int64 tensor of shape (B,), got {seeds.dtype} {tuple(seeds.shape)}"
        )
    if count < 0:
        raise ValueError(f"philox: count must be >= 0, got {count}")
    block = torch.arange((count + 3) // 4, device=seeds.device).unsqueeze(0)
    key = ((seeds & _MASK).unsqueeze(1), ((seeds >> 32) & _MASK).unsqueeze(1))
    rows = row.reshape(-1, 1) & _MASK if isinstance(row, Tensor) else torch.full_like(key[0], row & _MASK)
    streams = stream if isinstance(stream, Tensor) else torch.full_like(key[0], int(stream))
    words = philox4x32((block & _MASK, rows, streams, block >> 32), key)
    return torch.stack(torch.broadcast_tensors(*words), dim=-1)


def _unit(words: Tensor, dtype: torch.dtype) -> Tensor:
    return ((words >> 9).to(dtype) + 0.5) * 2.0**-23


def uniform(
    seeds: Tensor,
    count: int,
    *,
    row: int | Tensor = 0,
    stream: int | Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform numbers in (0, 1).

    Args:
        seeds: (B,) int64, the 64 bits of each sample's seed.
        count: numbers per sample.
        row: row index, one for all or (B,) int64.
        stream: which stream, see `Stream`; or an int64 tensor ().
        dtype: float32 or float64.

    Returns:
        (B, count) tensor of multiples of 2**-24.
    """
    return _unit(_words(seeds, count, row, stream), dtype).flatten(1)[:, :count]


def _cos_sin_turns(turns: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi turns; the reduction to an eighth of a turn is exact."""
    quarter = torch.round(4.0 * turns)
    angle = (4.0 * turns - quarter) * (0.5 * math.pi)
    cos, sin = torch.cos(angle), torch.sin(angle)
    odd = quarter.remainder(2.0) == 1.0
    cos_negative = (quarter == 1.0) | (quarter == 2.0)
    sin_negative = (quarter == 2.0) | (quarter == 3.0)
    first, second = torch.where(odd, sin, cos), torch.where(odd, cos, sin)
    return torch.where(cos_negative, -first, first), torch.where(sin_negative, -second, second)


def normal(
    seeds: Tensor,
    count: int,
    *,
    row: int | Tensor = 0,
    stream: int | Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers by Box-Muller from consecutive pairs of words.

    Args and shape as `uniform`; |values| <= 5.77.
    """
    u = _unit(_words(seeds, count, row, stream), dtype).unflatten(-1, (2, 2))
    radius = torch.sqrt(-2.0 * torch.log(u[..., 0]))
    cos, sin = _cos_sin_turns(u[..., 1])
    return torch.stack((radius * cos, radius * sin), dim=-1).flatten(1)[:, :count]
