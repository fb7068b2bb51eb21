"""linear_attention: softmax(q) * scale times the context softmax(k)^T v; see `fastdiff.ops.linear_attention`.

Three launches. The keys of a head are cut into parts, so that few heads still fill a device: one program takes the
maxima, sums and products of its part. The parts are joined by one program for each head, in order, and the context
is then applied to the queries. Every number is written by one program: no atomics, the same result every time.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from .attention import load_tile, precision, start_of, store_tile, strides
from .attention_tiles import architecture_of, power_of_two
from .launching import capability_of, register

#: Rows of a tile, and rows that one program of the first launch walks over.
ROWS = 32
PART = 1024
#: Depth of the pipeline of loads.
STAGES = 2


@triton.jit
def linear_attention_part_kernel(
    most, total, context, k, v, heads, keys, parts, k_b, k_h, k_n, v_b, v_h, v_n,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, PART: tl.constexpr,
    WIDTH: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One program sums exp(k) v over PART keys of one head, relative to the maximum of each column of k."""
    part, head = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, D)
    k = start_of(k, head, heads, k_b, k_h)
    v = start_of(v, head, heads, v_b, v_h)
    top = tl.full((D,), float("-inf"), tl.float32)
    sums = tl.zeros((D,), tl.float32)
    product = tl.zeros((D, D), tl.float32)
    last = tl.minimum(keys, (part + 1) * PART)
    for first in range(part * PART, last, ROWS):
        rows = first + tl.arange(0, ROWS)
        key = load_tile(k, rows, k_n, columns, keys, WIDTH, tl.float32)
        key = tl.where(rows[:, None] < keys, key, float("-inf"))
        new = tl.maximum(top, tl.max(key, 0))
        kept, powers = tl.exp(top - new), tl.exp(key - new[None, :])
        sums = sums * kept + tl.sum(powers, 0)
        value = load_tile(v, rows, v_n, columns, keys, WIDTH, DOT)
        product = tl.dot(tl.trans(powers.to(DOT)), value, product * kept[:, None], input_precision=PRECISION)
        top = new
    place = (head * parts + part).to(tl.int64) * D
    tl.store(most + place + columns, top)
    tl.store(total + place + columns, sums)
    tl.store(context + (place + columns[:, None]) * D + columns[None, :], product)


@triton.jit
def linear_attention_join_kernel(joined, most, total, context, parts, D: tl.constexpr):
    """One program joins the parts of one head, divides by the sums, and writes the context (D, D)."""
    head = tl.program_id(0)
    columns = tl.arange(0, D)
    top = tl.full((D,), float("-inf"), tl.float32)
    sums = tl.zeros((D,), tl.float32)
    product = tl.zeros((D, D), tl.float32)
    for part in range(parts):
        place = (head * parts + part).to(tl.int64) * D
        own = tl.load(most + place + columns)
        new = tl.maximum(top, own)
        kept, factor = tl.exp(top - new), tl.exp(own - new)
        sums = sums * kept + tl.load(total + place + columns) * factor
        here = tl.load(context + (place + columns[:, None]) * D + columns[None, :])
        product = product * kept[:, None] + here * factor[:, None]
        top = new
    result = product / sums[:, None]
    tl.store(joined + (head.to(tl.int64) * D + columns[:, None]) * D + columns[None, :], result)


@triton.jit
def linear_attention_kernel(
    out, q, joined, scale, heads, queries, out_b, out_h, out_n, q_b, q_h, q_n,
    DOT: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One program applies the context to ROWS queries of one head."""
    head = tl.program_id(1)
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    q = start_of(q, head, heads, q_b, q_h)
    query = load_tile(q, rows, q_n, columns, queries, WIDTH, tl.float32)
    query = tl.where(columns[None, :] < WIDTH, query, float("-inf"))
    powers = tl.exp(query - tl.max(query, 1)[:, None])
    powers = powers * (scale / tl.sum(powers, 1))[:, None]
    context = tl.load(joined + (head.to(tl.int64) * D + columns[:, None]) * D + columns[None, :])
    result = tl.dot(powers.to(DOT), context.to(DOT), input_precision=PRECISION)
    store_tile(start_of(out, head, heads, out_b, out_h), result, rows, out_n, columns, queries, WIDTH)


def warps_of(width: int) -> int:
    """Warps of a program that holds a context (width, width)."""
    return 8 if width > 32 else 4


def queries_of(architecture: int) -> int:
    """Queries that a program of the last launch owns: wgmma of sm_90 takes 64 rows at least, on sm_80 they spill."""
    return 64 if architecture >= 90 else 32


def launch(out: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> None:
    """Fill out; all (batch, heads, rows, width) with dense rows."""
    if out.numel() == 0:
        return
    (batch, heads, queries, width), keys = q.shape, k.shape[2]
    whole, parts, count = power_of_two(width), triton.cdiv(keys, PART), batch * heads
    dot, exactness = precision(q)
    options = {
        "DOT": dot,
        "PRECISION": exactness,
        "WIDTH": width,
        "D": whole,
        "num_warps": warps_of(whole),
    }
    own = queries_of(architecture_of(capability_of(q)))
    most, total = (q.new_empty((count, parts, whole), dtype=torch.float32) for _ in range(2))
    context = q.new_empty((count, parts, whole, whole), dtype=torch.float32)
    joined = q.new_empty((count, whole, whole), dtype=torch.float32)
    with torch.cuda.device_of(out):
        linear_attention_part_kernel[parts, count](
            most, total, context, k, v, heads, keys, parts, *strides(k, v), ROWS=ROWS, PART=PART, **options
        )
        linear_attention_join_kernel[(count,)](
            joined, most, total, context, parts, D=whole, num_warps=warps_of(whole)
        )
        linear_attention_kernel[triton.cdiv(queries, own), count](
            out, q, joined, scale, heads, queries, *strides(out, q), ROWS=own, **options
        )


register("linear_attention_triton(Tensor(a!) out, Tensor q, Tensor k, Tensor v, float scale) -> ()", launch)
