"""vq_nearest: rows x codes in tiles, the nearest code so far kept in registers; see `fastdiff.ops.vq_nearest`.

Products run on tensor cores. float32 is cut into three TF32 products (3xTF32), whose error is that of float32; values
of half precision are TF32 numbers already and need one. float32 codes and rows are taken relative to a pivot near
the mean code: the differences of distances stay the same, and data far from 0 keeps its digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import triton
import triton.language as tl

from .launching import capability_of, register
from .maps import power
from .rows import as_rows


@triton.jit
def _write_found(
    quantised, distance, z, codes, n, d, z_step, code_step, rows, width,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Copy the codes found, and add up the squared distances to them; z and codes point at the first chunk."""
    total = tl.zeros((ROWS,), tl.float32)
    for chunk in range(CHUNKS):
        at = chunk * WIDTH + d
        real = (n < rows)[:, None] & (at < width)[None, :]
        code = tl.load(codes + chunk * WIDTH * code_step, mask=real, other=0.0)
        if quantised is not None:
            tl.store(quantised + n[:, None] * width + at[None, :], code, mask=real)
        if distance is not None:
            row = tl.load(z + chunk * WIDTH * z_step, mask=real, other=0.0)
            apart = row.to(tl.float32) - code.to(tl.float32)
            total += tl.sum(apart * apart, 1)
    if distance is not None:
        tl.store(distance + n, total, mask=n < rows)


@triton.jit
def vq_nearest_kernel(
    index,  # int64 (N,)
    quantised,  # (N, D) of the codebook's type, or None
    distance,  # float32 (N,) or None
    counts,  # int64 (K,), zeros, or None
    z,  # (N, D) in the strides below
    codebook,  # (K, D) likewise
    pivot,  # float32 (D,) or None
    z_row,
    z_step,
    code_row,
    code_step,
    rows,
    codes,
    width,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    WIDTH: tl.constexpr,  # of a chunk
    CHUNKS: tl.constexpr,  # of a row; where there is one, z is read once
):
    """One program finds the nearest codes of ROWS rows."""
    start_row = tl.program_id(0).to(tl.int64) * ROWS
    r, d, lane = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, CODES)
    n = start_row + r
    z += start_row * z_row  # what is added below fits 32 bits
    z_at, code_at = (
        r[:, None] * z_row + d[None, :] * z_step,
        lane[:, None] * code_row + d[None, :] * code_step,
    )
    real = (n < rows)[:, None] & (d < width)[None, :]
    first = tl.load(z + z_at, mask=real, other=0.0).to(tl.float32)
    if pivot is not None:
        first -= tl.load(pivot + d, mask=d < width, other=0.0)[None, :]
    best, nearest = tl.full((ROWS,), float("inf"), tl.float32), tl.full((ROWS,), 0, tl.int32)
    for start in range(0, codes, CODES):
        k = start + lane
        tile = codebook + tl.cast(start, tl.int64) * code_row
        score = tl.zeros((ROWS, CODES), tl.float32)
        halves = tl.zeros((CODES,), tl.float32)
        for chunk in range(CHUNKS):
            at = chunk * WIDTH + d
            inside = (k < codes)[:, None] & (at < width)[None, :]
            code = tl.load(tile + chunk * WIDTH * code_step + code_at, mask=inside, other=0.0)
            code = code.to(tl.float32)
            if CHUNKS > 1:
                real = (n < rows)[:, None] & (at < width)[None, :]
                row = tl.load(z + chunk * WIDTH * z_step + z_at, mask=real, other=0.0).to(tl.float32)
            else:
                row = first
            if pivot is not None:
                middle = tl.load(pivot + at, mask=at < width, other=0.0)[None, :]
                code = tl.where(inside, code - middle, 0.0)
                if CHUNKS > 1:
                    row -= middle
            halves += 0.5 * tl.sum(code * code, 1)
            score = tl.dot(row, tl.trans(code), score, input_precision=PRECISION)
        score = halves[None, :] - score
        usable = (k < codes)[None, :] & (score == score)  # what is not a number is never nearest
        score = tl.where(usable, score, float("inf"))
        least = tl.min(score, 1)
        lowest = tl.min(tl.where(score == least[:, None], k[None, :], 2147483647), 1)
        nearer = least < best  # of equal distances the lower index stays
        nearest = tl.where(nearer, lowest, nearest)
        best = tl.where(nearer, least, best)

    tl.store(index + n, nearest.to(tl.int64), mask=n < rows)
    if counts is not None:
        tl.atomic_add(counts + nearest, tl.full((ROWS,), 1, tl.int64), mask=n < rows, sem="relaxed")
    if (quantised is not None) | (distance is not None):
        found = codebook + nearest.to(tl.int64)[:, None] * code_row + d[None, :] * code_step
        _write_found(
            quantised, distance, z + z_at, found, n, d, z_step, code_step, rows, width, ROWS, WIDTH, CHUNKS
        )


class Tile(NamedTuple):
    """Rows and codes of a tile, elements of a chunk of a row, warps and stages."""

    rows: int
    codes: int
    width: int
    warps: int
    stages: int


def tile_of(width: int, exact: bool, capability: int) -> Tile:
    """The tile that neither spills nor asks for too much shared memory (docs/gpu_static.md).

    Args:
        width: D.
        exact: 3xTF32, which holds every operand twice.
        capability: 80, 89, 90, 100 ...
    """
    widest = 64 if not exact or (capability >= 90 and width <= 64) else 32
    chunk = min(max(16, power(width)), widest)
    one = width <= chunk
    if capability >= 90:
        return Tile(128, 128 if one and not exact else 64, chunk, 8, 2)
    if one and not exact:
        return Tile(128, 64, chunk, 8, 2)
    return Tile(64, 64, chunk, 4 if one else 8, 2)


def launch(
    index: Tensor,
    quantised: Tensor | None,
    distance: Tensor | None,
    counts: Tensor | None,
    z: Tensor,
    codebook: Tensor,
    pivot: Tensor | None,
) -> None:
    """Write the nearest codes of the rows of z and what else is given; see `fastdiff.ops.vq_nearest`."""
    if counts is not None:
        counts.zero_()
    if z.numel() == 0:
        return
    codes, width = codebook.shape
    tile = tile_of(width, pivot is not None, capability_of(z))
    (z, z_row, z_step), (codebook, code_row, code_step) = (as_rows(t, tile.rows) for t in (z, codebook))
    rows = index.numel()
    with torch.cuda.device_of(z):
        vq_nearest_kernel[(-(-rows // tile.rows),)](
            *(index, quantised, distance, counts, z, codebook, pivot, z_row, z_step, code_row, code_step),
            *(rows, codes, width),
            PRECISION="tf32" if pivot is None else "tf32x3",
            ROWS=tile.rows,
            CODES=tile.codes,
            WIDTH=tile.width,
            CHUNKS=-(-width // tile.width),
            num_warps=tile.warps,
            num_stages=tile.stages,
        )


register(
    "vq_nearest_triton(Tensor(a!) index, Tensor(b!)? quantised, Tensor(c!)? distance, Tensor(d!)? counts, Tensor z, "
    "Tensor codebook, Tensor? pivot) -> ()",
    launch,
)
