"""add_noise: the forward process in one pass; see `fastdiff.ops.add_noise`."""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from . import columns, normal
from .launching import BLOCK, WARPS, alike, dense, register, sizes
from .philox import normals, row_of
from .reading import places, read, term, used


@triton.jit
def add_noise_kernel(
    out,  # float32 (B, count)
    noise_out,  # float32 (B, count) or None
    x0,  # (B, count) in the strides below
    x0_sample,
    x0_channel,
    x0_pixel,
    alpha,  # float32 (B,)
    sigma,  # float32 (B,)
    seeds,  # int64 (B,) or None
    rows,  # int64 (B,) or None
    row,  # where rows is None
    noise,  # (B, count) or None: made from the seeds
    shifts,  # float32 (B, channels), the offset noise, or None
    offset,
    channels,
    count,
    pixels,
    tiles,  # of BLOCK elements, of one sample
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,  # count needs 64 bits
    BLOCK: tl.constexpr,
):
    """One program noises BLOCK elements of one sample."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    start = (program % tiles).to(tl.int64) * BLOCK
    first = start if WIDE else start.to(tl.int32)
    at = first + tl.arange(0, BLOCK)
    inside = at < count
    a, s = tl.load(alpha + sample), tl.load(sigma + sample)
    if noise is not None:
        eps = read(noise, sample * count + at, inside)
    else:
        stream = tl.full((), columns.STREAM_FORWARD, tl.uint32)
        eps = normals(tl.load(seeds + sample), row_of(rows, row, sample), stream, start, BLOCK)
    if shifts is not None:
        eps += offset * tl.load(shifts + sample * channels + at // pixels, mask=inside, other=0.0)
    source = places(at, sample, x0_sample, x0_channel, x0_pixel, pixels, DENSE)
    value = term(a, read(x0, source, inside & used(a))) + s * eps
    if noise_out is not None:
        tl.store(noise_out + sample * count + at, eps, mask=inside)
    tl.debug_barrier()  # out may be x0: every thread has read before any writes
    tl.store(out + sample * count + at, value, mask=inside)


def launch(
    out: Tensor,
    noise_out: Tensor | None,
    x0: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    seeds: Tensor | None,
    rows: Tensor | None,
    row: int,
    noise: Tensor | None,
    offset: float,
) -> None:
    """Write x_t, float32 (B, C, ...) dense, into out; see `fastdiff.ops.add_noise`."""
    if out.numel() == 0:
        return
    count, pixels, tiles = sizes(out)
    batch, channels = x0.shape[:2]
    shifts = None
    if offset and seeds is not None:
        shifts = torch.empty(batch, channels, dtype=torch.float32, device=x0.device)
        normal.launch(shifts, seeds, rows, row, int(columns.STREAM_OFFSET.value))
    (image,), layout, is_dense = alike(x0)
    with torch.cuda.device_of(out):
        add_noise_kernel[(batch * tiles,)](
            *(out, noise_out, image, *layout, alpha, sigma, seeds, rows, row, dense(noise), shifts, offset),
            *(channels, count, pixels, tiles),
            DENSE=is_dense,
            WIDE=count >= 2**31,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )


register(
    "add_noise_triton(Tensor(a!) out, Tensor(b!)? noise_out, Tensor x0, Tensor alpha, Tensor sigma, "
    "Tensor? seeds, Tensor? rows, int row, Tensor? noise, float offset) -> ()",
    launch,
)
