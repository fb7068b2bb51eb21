"""normal: one pass that writes noise; see `fastdiff.ops.normal`."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .launching import BLOCK, WARPS, register, sizes
from .philox import normals, row_of


@triton.jit
def normal_kernel(
    out,  # float32 (B, count)
    seeds,  # int64 (B,)
    rows,  # int64 (B,) or None
    row,  # where rows is None
    stream,
    count,
    tiles,  # of BLOCK elements, of one sample
    BLOCK: tl.constexpr,
):
    """One program writes BLOCK numbers of one sample."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    start = (program % tiles).to(tl.int64) * BLOCK
    noise = normals(
        tl.load(seeds + sample), row_of(rows, row, sample), tl.full((), stream, tl.uint32), start, BLOCK
    )
    at = start + tl.arange(0, BLOCK)
    tl.store(out + sample * count + at, noise, mask=at < count)


def launch(out: Tensor, seeds: Tensor, rows: Tensor | None, row: int, stream: int) -> None:
    """Fill out, float32 (B, ...), with the noise of the seeds."""
    if out.numel() == 0:
        return
    count, _, tiles = sizes(out)
    with torch.cuda.device_of(out):
        normal_kernel[(seeds.numel() * tiles,)](
            out, seeds, rows, row, stream, count, tiles, BLOCK=BLOCK, num_warps=WARPS
        )


register("normal_triton(Tensor(a!) out, Tensor seeds, Tensor? rows, int row, int stream) -> ()", launch)
