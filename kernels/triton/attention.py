"""attention: softmax(q k^T * scale) v and its gradient; see `fastdiff.ops.attention`.

The forward kernel walks over the keys once for each block of queries and keeps, per query, the largest score and the
sum of exponentials, which it corrects from block to block. The gradient computes the scores again, from q, k and
these two: one kernel for dq, one program for each block of queries, and one for dk and dv, one
program for each block of keys. Every number is written by one program: no atomics, the same result every time.

A score that is computed again must round as it did: a difference of d between the two is an error of d in the logarithm
of its power. It is 0 where products of tiles of both sizes are summed in one order; else it is bounded by what two sums
of D products may differ by, D 2**-23 |q| |k| scale.

Heads wider than one tile are cut into chunks: scores are summed over chunks of D, and a program writes one
chunk of its output, for which it computes the scores again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import triton
import triton.language as tl

from .attention_tiles import Tiles, architecture_of, backward, forward
from .launching import INTERPRETED, capability_of, register

LOG2E = tl.constexpr(1.4426950408889634)
#: Rows of a program of `attention_dot_kernel`; with 64 it spills on sm_100.
DOT_ROWS = 32


@triton.jit
def start_of(base, head, heads, batch_stride, head_stride):
    """Pointer to one of the (batch, heads) matrices."""
    return base + (head // heads).to(tl.int64) * batch_stride + (head % heads).to(tl.int64) * head_stride


@triton.jit
def load_tile(base, rows, row_stride, columns, count, WIDTH: tl.constexpr, DOT: tl.constexpr):
    """A tile (rows, columns) of a matrix whose rows are dense, 0 beyond its ends, in the type that products take."""
    places = base + rows.to(tl.int64)[:, None] * row_stride + columns[None, :]
    inside = rows[:, None] < count
    inside = inside & (columns[None, :] < WIDTH)
    tile = tl.load(places, mask=inside, other=0.0)
    if tile.dtype != DOT:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def store_tile(base, values, rows, row_stride, columns, count, WIDTH: tl.constexpr):
    """Write a tile (rows, columns) where it lies inside."""
    places = base + rows.to(tl.int64)[:, None] * row_stride + columns[None, :]
    inside = rows[:, None] < count
    inside = inside & (columns[None, :] < WIDTH)
    tl.store(places, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_statistics(statistics, head, rows, queries):
    """Largest score (in powers of two) and 1 / sum of some queries of a head; inf and 0 beyond the last query."""
    place = statistics + head.to(tl.int64) * 2 * queries + rows
    most = tl.load(place, mask=rows < queries, other=float("inf"))
    return most, tl.load(place + queries, mask=rows < queries, other=0.0)


@triton.jit
def product(
    a, a_rows, a_stride, a_count, b, b_rows, b_stride, b_count,
    DOT: tl.constexpr, PRECISION: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """a b^T over rows of WIDTH, a chunk at a time."""
    total = tl.zeros((a_rows.shape[0], b_rows.shape[0]), tl.float32)
    for start in range(0, WIDTH, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        left = load_tile(a, a_rows, a_stride, columns, a_count, WIDTH, DOT)
        right = load_tile(b, b_rows, b_stride, columns, b_count, WIDTH, DOT)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    return total


@triton.jit
def attention_kernel(
    out, statistics, q, k, v, scale, heads, queries, keys,
    out_b, out_h, out_n, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    DOT: tl.constexpr, PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program writes PIECE columns of M queries of one head."""
    head, piece = tl.program_id(1), tl.program_id(2)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = piece * PIECE + tl.arange(0, PIECE)
    q = start_of(q, head, heads, q_b, q_h)
    k = start_of(k, head, heads, k_b, k_h)
    v = start_of(v, head, heads, v_b, v_h)
    most = tl.full((M,), float("-inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, PIECE), tl.float32)
    if CHUNK >= WIDTH:
        held = load_tile(q, rows, q_n, tl.arange(0, CHUNK), queries, WIDTH, DOT)
    for first in range(0, keys, N):
        at = first + tl.arange(0, N)
        if CHUNK >= WIDTH:
            key = load_tile(k, at, k_n, tl.arange(0, CHUNK), keys, WIDTH, DOT)
            scores = tl.dot(held, tl.trans(key), input_precision=PRECISION)
        else:
            scores = product(q, rows, q_n, queries, k, at, k_n, keys, DOT, PRECISION, WIDTH, CHUNK)
        scores = tl.where(at[None, :] < keys, scores * (scale * LOG2E), float("-inf"))
        new = tl.maximum(most, tl.max(scores, 1))
        powers = tl.exp2(scores - new[:, None])
        kept = tl.exp2(most - new)
        total = total * kept + tl.sum(powers, 1)
        value = load_tile(v, at, v_n, columns, keys, WIDTH, DOT)
        result = tl.dot(powers.to(DOT), value, result * kept[:, None], input_precision=PRECISION)
        most = new
    out = start_of(out, head, heads, out_b, out_h)
    store_tile(out, result / total[:, None], rows, out_n, columns, queries, WIDTH)
    if statistics is not None:
        inside = (rows < queries) & (piece == 0)
        statistics += head.to(tl.int64) * 2 * queries
        tl.store(statistics + rows, most, mask=inside)
        tl.store(statistics + queries + rows, 1.0 / total, mask=inside)


@triton.jit
def attention_dot_kernel(
    products, out, gradient, heads, queries,
    out_b, out_h, out_n, g_b, g_h, g_n,
    M: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """For M queries of one head, the products of output and gradient summed over D."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    out = start_of(out, head, heads, out_b, out_h)
    gradient = start_of(gradient, head, heads, g_b, g_h)
    total = tl.zeros((M,), tl.float32)
    for start in range(0, WIDTH, CHUNK):
        columns = start + tl.arange(0, CHUNK)
        one = load_tile(out, rows, out_n, columns, queries, WIDTH, tl.float32)
        two = load_tile(gradient, rows, g_n, columns, queries, WIDTH, tl.float32)
        total += tl.sum(one * two, 1)
    tl.store(products + head.to(tl.int64) * queries + rows, total, mask=rows < queries)


@triton.jit
def attention_dq_kernel(
    dq, gradient, q, k, v, statistics, products, scale, heads, queries, keys,
    dq_b, dq_h, dq_n, g_b, g_h, g_n, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    DOT: tl.constexpr, PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program writes PIECE columns of the gradient of M queries of one head."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(2) * PIECE + tl.arange(0, PIECE)
    q = start_of(q, head, heads, q_b, q_h)
    k = start_of(k, head, heads, k_b, k_h)
    v = start_of(v, head, heads, v_b, v_h)
    gradient = start_of(gradient, head, heads, g_b, g_h)
    place = head.to(tl.int64) * queries + rows
    most, reciprocal = load_statistics(statistics, head, rows, queries)
    along = tl.load(products + place, mask=rows < queries, other=0.0)
    result = tl.zeros((M, PIECE), tl.float32)
    if CHUNK >= WIDTH:
        query = load_tile(q, rows, q_n, columns, queries, WIDTH, DOT)
        arriving = load_tile(gradient, rows, g_n, columns, queries, WIDTH, DOT)
    for first in range(0, keys, N):
        at = first + tl.arange(0, N)
        key = load_tile(k, at, k_n, columns, keys, WIDTH, DOT)
        if CHUNK >= WIDTH:
            value = load_tile(v, at, v_n, columns, keys, WIDTH, DOT)
            scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
            slope = tl.dot(arriving, tl.trans(value), input_precision=PRECISION)
        else:
            scores = product(q, rows, q_n, queries, k, at, k_n, keys, DOT, PRECISION, WIDTH, CHUNK)
            slope = product(gradient, rows, g_n, queries, v, at, v_n, keys, DOT, PRECISION, WIDTH, CHUNK)
        powers = tl.exp2(scores * (scale * LOG2E) - most[:, None]) * reciprocal[:, None]
        slope = tl.where(at[None, :] < keys, powers * (slope - along[:, None]), 0.0)
        result = tl.dot(slope.to(DOT), key, result, input_precision=PRECISION)
    store_tile(start_of(dq, head, heads, dq_b, dq_h), result * scale, rows, dq_n, columns, queries, WIDTH)


@triton.jit
def attention_dkv_kernel(
    dk, dv, gradient, q, k, v, statistics, products, scale, heads, queries, keys,
    dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, g_b, g_h, g_n, q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    DOT: tl.constexpr, PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """One program writes PIECE columns of the gradients of M keys and values of one head."""
    head = tl.program_id(1)
    at = tl.program_id(0) * M + tl.arange(0, M)
    columns = tl.program_id(2) * PIECE + tl.arange(0, PIECE)
    q = start_of(q, head, heads, q_b, q_h)
    k = start_of(k, head, heads, k_b, k_h)
    v = start_of(v, head, heads, v_b, v_h)
    gradient = start_of(gradient, head, heads, g_b, g_h)
    d_key = tl.zeros((M, PIECE), tl.float32)
    d_value = tl.zeros((M, PIECE), tl.float32)
    if CHUNK >= WIDTH:
        key = load_tile(k, at, k_n, columns, keys, WIDTH, DOT)
        value = load_tile(v, at, v_n, columns, keys, WIDTH, DOT)
    for first in range(0, queries, N):
        rows = first + tl.arange(0, N)
        place = head.to(tl.int64) * queries + rows
        query = load_tile(q, rows, q_n, columns, queries, WIDTH, DOT)
        arriving = load_tile(gradient, rows, g_n, columns, queries, WIDTH, DOT)
        most, reciprocal = load_statistics(statistics, head, rows, queries)
        along = tl.load(products + place, mask=rows < queries, other=0.0)
        if CHUNK >= WIDTH:
            scores = tl.dot(key, tl.trans(query), input_precision=PRECISION)
            slope = tl.dot(value, tl.trans(arriving), input_precision=PRECISION)
        else:
            scores = product(k, at, k_n, keys, q, rows, q_n, queries, DOT, PRECISION, WIDTH, CHUNK)
            slope = product(v, at, v_n, keys, gradient, rows, g_n, queries, DOT, PRECISION, WIDTH, CHUNK)
        powers = (
            tl.exp2(scores * (scale * LOG2E) - most[None, :]) * reciprocal[None, :]
        )  # 0 for queries beyond the last
        slope = powers * (slope - along[None, :])
        d_value = tl.dot(powers.to(DOT), arriving, d_value, input_precision=PRECISION)
        d_key = tl.dot(slope.to(DOT), query, d_key, input_precision=PRECISION)
    store_tile(start_of(dk, head, heads, dk_b, dk_h), d_key * scale, at, dk_n, columns, keys, WIDTH)
    store_tile(start_of(dv, head, heads, dv_b, dv_h), d_value, at, dv_n, columns, keys, WIDTH)


def precision(q: Tensor) -> tuple[tl.dtype, str]:
    """The type that products take and how exact they are; the interpreter has no products of bfloat16."""
    if q.dtype == torch.float32 or (INTERPRETED and q.dtype == torch.bfloat16):
        return tl.float32, "ieee" if INTERPRETED else "tf32x3"
    return (tl.float16 if q.dtype == torch.float16 else tl.bfloat16), "ieee"


def _tiles(choose: Callable[[int, int, int], Tiles], q: Tensor) -> Tiles:
    return choose(architecture_of(capability_of(q)), q.shape[-1], q.element_size())


def strides(*tensors: Tensor) -> list[int]:
    """(batch, head, row) strides of each tensor, one after the other."""
    return [stride for t in tensors for stride in t.stride()[:3]]


def _options(tiles: Tiles, q: Tensor) -> dict[str, Any]:
    dot, exactness = precision(q)
    sizes = {"M": tiles.M, "N": tiles.N, "WIDTH": q.shape[-1], "CHUNK": tiles.CHUNK, "PIECE": tiles.PIECE}
    return {**sizes, "DOT": dot, "PRECISION": exactness, "num_warps": tiles.warps, "num_stages": tiles.stages}


def launch(out: Tensor, statistics: Tensor | None, q: Tensor, k: Tensor, v: Tensor, scale: float) -> None:
    """Fill out and statistics (..., 2, queries); the others (batch, heads, rows, width) with dense rows."""
    if out.numel() == 0:
        return
    (batch, heads, queries, width), keys, tiles = q.shape, k.shape[2], _tiles(forward, q)
    grid = (triton.cdiv(queries, tiles.M), batch * heads, triton.cdiv(width, tiles.PIECE))
    with torch.cuda.device_of(out):
        attention_kernel[grid](
            out,
            statistics,
            q,
            k,
            v,
            scale,
            heads,
            queries,
            keys,
            *strides(out, q, k, v),
            **_options(tiles, q),
        )


def launch_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, gradient: Tensor, out: Tensor, statistics: Tensor,
    q: Tensor, k: Tensor, v: Tensor, scale: float,
) -> None:  # fmt: skip
    """Fill the gradients of q, k and v; all (batch, heads, rows, width) with dense rows."""
    if dq.numel() == 0:
        dk.zero_()
        dv.zero_()
        return
    (batch, heads, queries, width), keys, tiles = q.shape, k.shape[2], _tiles(backward, q)
    pieces, products = (
        triton.cdiv(width, tiles.PIECE),
        q.new_empty((batch * heads, queries), dtype=torch.float32),
    )
    options = _options(tiles, q)
    with torch.cuda.device_of(q):
        attention_dot_kernel[triton.cdiv(queries, DOT_ROWS), batch * heads](
            products, out, gradient, heads, queries, *strides(out, gradient),
            M=DOT_ROWS, WIDTH=width, CHUNK=tiles.CHUNK,
        )  # fmt: skip
        read = gradient, q, k, v
        facts = statistics, products, scale, heads, queries, keys
        attention_dq_kernel[triton.cdiv(queries, tiles.M), batch * heads, pieces](
            dq, *read, *facts, *strides(dq, *read), **options
        )
        attention_dkv_kernel[triton.cdiv(keys, tiles.M), batch * heads, pieces](
            dk, dv, *read, *facts, *strides(dk, dv, *read), **options
        )


register(
    "attention_triton(Tensor(a!) out, Tensor(b!)? statistics, Tensor q, Tensor k, Tensor v, float scale) -> ()",
    launch,
)
register(
    "attention_backward_triton(Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv, Tensor gradient, Tensor out, "
    "Tensor statistics, Tensor q, Tensor k, Tensor v, float scale) -> ()",
    launch_backward,
)
