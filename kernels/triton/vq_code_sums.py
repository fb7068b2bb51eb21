"""vq_code_sums: rows ordered by code, then each code summed in the order of its rows; nothing is added atomically.

A code's rows are cut into parts of at most PART: one program sums a part, a second launch the parts of each code. How
many parts there are at most is known without looking at the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .launching import register
from .maps import power
from .rows import as_rows

#: Rows of a part, and of a tile.
PART, TILE = 256, 32


@triton.jit
def vq_part_sums_kernel(
    partials,  # float32 (parts, D)
    z,  # (N, D) in the strides below
    order,  # int64 (N,), the rows ordered by code
    codes_of_parts,  # int64 (parts,); `codes` where there is no such part
    starts,  # int64 (K + 1,), where a code's rows begin in `order`
    first_parts,  # int64 (K,)
    z_row,
    z_step,
    codes,
    width,
    PART: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program adds up WIDTH elements of the rows of one part."""
    part, d = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    code = tl.load(codes_of_parts + part)
    if code < codes:
        begin = tl.load(starts + code) + (part - tl.load(first_parts + code)) * PART
        end = tl.minimum(begin + PART, tl.load(starts + code + 1))
        total = tl.zeros((ROWS, WIDTH), tl.float32)
        for step in range(0, PART, ROWS):
            i = begin + step + tl.arange(0, ROWS)
            n = tl.load(order + i, mask=i < end, other=0)
            real = (i < end)[:, None] & (d < width)[None, :]
            total += tl.load(z + n[:, None] * z_row + d[None, :] * z_step, mask=real, other=0.0).to(
                tl.float32
            )
        tl.store(partials + part * width + d, tl.sum(total, 0), mask=d < width)


@triton.jit
def vq_code_sums_kernel(
    sums,  # float32 (K, D)
    partials,
    first_parts,
    ends,  # int64 (K,), one past the last part of a code
    width,
    WIDTH: tl.constexpr,
):
    """One program adds up the parts of one code in their order."""
    code, d = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), tl.float32)
    for part in range(tl.load(first_parts + code), tl.load(ends + code)):
        total += tl.load(partials + part * width + d, mask=d < width, other=0.0)
    tl.store(sums + code * width + d, total, mask=d < width)


def _keys(index: Tensor, codes: int) -> Tensor:
    """The codes in as few bytes as hold them, since a GPU sorts byte by byte; -1 or K for anything else."""
    dtype = torch.int16 if codes + 1 < 2**15 else torch.int32 if codes + 1 < 2**31 else torch.int64
    return index.reshape(-1).clamp(-1, codes).to(dtype)


def launch(sums: Tensor, counts: Tensor, z: Tensor, index: Tensor) -> None:
    """Write the sums (K, D) and counts (K,); an index outside [0, K) counts nowhere."""
    codes, width = sums.shape
    ordered, order = torch.sort(_keys(index, codes), stable=True)
    starts = torch.searchsorted(ordered, torch.arange(codes + 1, device=z.device, dtype=ordered.dtype))
    counts.copy_(starts.diff())
    if z.numel() == 0:
        sums.zero_()
        return
    ends = ((counts + (PART - 1)) // PART).cumsum(0)
    first_parts = ends - (counts + (PART - 1)) // PART
    most = codes + order.numel() // PART
    codes_of_parts = torch.searchsorted(ends, torch.arange(most, device=z.device), right=True)
    partials = torch.empty(most, width, dtype=torch.float32, device=z.device)
    z, z_row, z_step = as_rows(z)
    wide = min(64, max(16, power(width)))
    across = -(-width // wide)
    with torch.cuda.device_of(z):
        vq_part_sums_kernel[(most, across)](
            *(partials, z, order, codes_of_parts, starts, first_parts, z_row, z_step, codes, width),
            PART=PART,
            ROWS=TILE,
            WIDTH=wide,
            num_warps=4,
        )
        vq_code_sums_kernel[(codes, across)](
            sums, partials, first_parts, ends, width, WIDTH=wide, num_warps=1
        )


register("vq_code_sums_triton(Tensor(a!) sums, Tensor(b!) counts, Tensor z, Tensor index) -> ()", launch)
