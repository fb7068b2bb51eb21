"""solver_step: one row of a step table in one pass; see `fastdiff.ops.row` for the formula.

The row is read from the table on the device, at an index that a counter on the device may hold. What the host could
not look at without waiting (a counter or slot out of range, a tensor that the row reads and nobody gave) makes the
result NaN; nothing is read or written out of bounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

import triton
import triton.language as tl

from . import columns
from .launching import BLOCK, WARPS, alike, dense, register, sizes
from .philox import normals
from .reading import places, read, term, used


@triton.jit
def _of_sample(per_sample, sample, COLUMN: tl.constexpr, row, ROW_COLUMN: tl.constexpr):
    """A coefficient that per_sample replaces where it is given."""
    if per_sample is not None:
        value = tl.load(per_sample + sample * columns.SAMPLE_WIDTH + COLUMN)
    else:
        value = tl.load(row + ROW_COLUMN)
    return value


@triton.jit
def _lacks(source, needed):
    """Whether something needed is not given."""
    if source is None:
        lacks = needed
    else:
        lacks = needed & False
    return lacks


@triton.jit
def _noise(given, seeds, sample, row, stream, start, offsets, inside, BLOCK: tl.constexpr):
    """Given or made noise; 0 where there is neither."""
    if given is not None:
        noise = read(given, offsets, inside)
    elif seeds is not None:
        noise_row = tl.load(row + columns.NOISE_ROW).to(tl.int64).to(tl.uint32)
        noise = normals(tl.load(seeds + sample), noise_row, stream, start, BLOCK)
    else:
        noise = tl.zeros((BLOCK,), tl.float32)
    return noise


@triton.jit
def _past(history, slots, ring, row, COLUMN: tl.constexpr, SLOT: tl.constexpr, offsets, inside):
    """h_k * history[slot_k], and whether the slot is wrong."""
    factor, slot = tl.load(row + COLUMN), tl.load(row + SLOT).to(tl.int64)
    exists = (slot >= 0) & (slot < slots)
    values = read(history, tl.where(exists, slot, 0) * ring + offsets, inside & exists & used(factor))
    return term(factor, values), used(factor) & (exists == 0)


@triton.jit
def _push(history, slots, ring, row, WHAT: tl.constexpr, SLOT: tl.constexpr, offsets, inside, x, x0, eps):
    """Write x, x0 or eps into the history."""
    what, slot = tl.load(row + WHAT).to(tl.int32), tl.load(row + SLOT).to(tl.int64)
    exists = (slot >= 0) & (slot < slots) & (what != columns.PUSH_NONE)
    value = tl.where(what == columns.PUSH_X, x, tl.where(what == columns.PUSH_X0, x0, eps))
    tl.store(history + tl.where(exists, slot, 0) * ring + offsets, value, mask=inside & exists)


@triton.jit
def _pushes(row, kind):
    """Whether one of the two pushes is of this kind."""
    return (tl.load(row + columns.PUSH_0).to(tl.int32) == kind) | (
        tl.load(row + columns.PUSH_1).to(tl.int32) == kind
    )


@triton.jit
def _clean_x0(row, per_sample, sample, x, m, c):
    """x0 = rho * clamp(u_x x + u_m m + u_c c, lo, hi); NaN stays NaN."""
    x0 = term(tl.load(row + columns.U_X), x) + term(tl.load(row + columns.U_M), m)
    x0 += term(tl.load(row + columns.U_C), c)
    low = _of_sample(per_sample, sample, columns.SAMPLE_LO, row, columns.LO)
    high = _of_sample(per_sample, sample, columns.SAMPLE_HI, row, columns.HI)
    x0 = tl.where(x0 > high, high, x0)
    x0 = tl.where(x0 < low, low, x0)
    return _of_sample(per_sample, sample, columns.SAMPLE_RHO, row, columns.RHO) * x0


@triton.jit
def _epsilon(row, x, x0, m, m_u, c):
    """eps = p_x x + p_0 x0 + p_m m + p_u m_u + p_c c."""
    eps = term(tl.load(row + columns.P_X), x) + term(tl.load(row + columns.P_0), x0)
    eps += term(tl.load(row + columns.P_M), m) + term(tl.load(row + columns.P_U), m_u)
    return eps + term(tl.load(row + columns.P_C), c)


@triton.jit
def _linear(row, x, x0, m, m_u, c):
    """b x + a x0 + q_m m + q_u m_u + d c."""
    new = term(tl.load(row + columns.B), x) + term(tl.load(row + columns.A), x0)
    new += term(tl.load(row + columns.Q_M), m) + term(tl.load(row + columns.Q_U), m_u)
    return new + term(tl.load(row + columns.D), c)


@triton.jit
def _any(row, FIRST: tl.constexpr, SECOND: tl.constexpr, THIRD: tl.constexpr):
    """Whether one of three coefficients is not 0."""
    return used(tl.load(row + FIRST)) | used(tl.load(row + SECOND)) | used(tl.load(row + THIRD))


@triton.jit
def _solver_noise(row, seeds, noise, v, sample, start, here, net, inside, BLOCK: tl.constexpr):
    """s * exp((l_0 + l_1 v) / 2) * noise, and whether something it needs is not given."""
    s, l_1 = tl.load(row + columns.S), tl.load(row + columns.L_1)
    added = tl.zeros((BLOCK,), tl.float32)
    lost = _lacks(v, used(s) & used(l_1))
    if seeds is None:
        lost |= _lacks(noise, used(s))
    if s != 0:
        log_variance = tl.load(row + columns.L_0) + term(l_1, read(v, net, inside & used(l_1)))
        stream = tl.load(row + columns.STREAM).to(tl.int64).to(tl.uint32)
        drawn = _noise(noise, seeds, sample, row, stream, start, here, inside, BLOCK)
        added = s * (tl.exp(0.5 * log_variance) * drawn)
    return added, lost


@triton.jit
def _region(row, seeds, known, known_noise, sample, start, here, wanted, BLOCK: tl.constexpr):
    """The known region i_y * known + i_s * noise, and whether something it needs is not given."""
    i_y, i_s = tl.load(row + columns.I_Y), tl.load(row + columns.I_S)
    region = term(i_y, read(known, here, wanted & used(i_y)))
    lost = _lacks(known, used(i_y))
    if seeds is None:
        lost |= _lacks(known_noise, used(i_s))
    if i_s != 0:
        stream = tl.full((), columns.STREAM_KNOWN, tl.uint32)
        region += i_s * _noise(known_noise, seeds, sample, row, stream, start, here, wanted, BLOCK)
    return region, lost


@triton.jit
def solver_step_kernel(
    out,  # float32 (B, count), may be x
    x0_out,  # float32 (B, count) or None
    history,  # float32 (slots, B, count) or None
    table,  # float32 (table_rows, WIDTH)
    counter,  # int64 (1,) or None
    x,  # float32 (B, count)
    m,  # (B, count) in the strides net_*, as m_u and v; None where not given
    m_u,
    v,
    cond,  # (B, count) dense or None; so are noise, known, known_noise
    seeds,  # int64 (B,) or None
    noise,
    known,
    mask,  # (B, count) in the strides mask_*, or None
    known_noise,
    per_sample,  # float32 (B, SAMPLE_WIDTH) or None
    row,  # where counter is None
    table_rows,
    slots,
    ring,  # B * count
    net_sample,
    net_channel,
    net_pixel,
    mask_sample,
    mask_channel,
    mask_pixel,
    count,
    pixels,
    tiles,  # of BLOCK elements, of one sample
    NET_DENSE: tl.constexpr,
    MASK_DENSE: tl.constexpr,
    WIDE: tl.constexpr,  # count needs 64 bits
    BLOCK: tl.constexpr,
):
    """One program steps BLOCK elements of one sample."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    start = (program % tiles).to(tl.int64) * BLOCK
    first = start if WIDE else start.to(tl.int32)
    at = first + tl.arange(0, BLOCK)
    inside = at < count
    here = sample * count + at
    if counter is not None:
        index = tl.load(counter)
    else:
        index = tl.full((), row, tl.int64)
    wrong = (index < 0) | (index >= table_rows)
    r = table + tl.where(wrong, 0, index) * columns.WIDTH

    # What the row reads.
    gain = _of_sample(per_sample, sample, columns.SAMPLE_GAIN, r, columns.GAIN)
    g_c = _of_sample(per_sample, sample, columns.SAMPLE_G_C, r, columns.G_C)
    g_u = _of_sample(per_sample, sample, columns.SAMPLE_G_U, r, columns.G_U)
    needs_x = used(gain) & (_any(r, columns.B, columns.U_X, columns.P_X) | _pushes(r, columns.PUSH_X))
    network = _any(r, columns.U_M, columns.P_M, columns.Q_M)
    needs_m = network & used(g_c)
    needs_u = (network & used(g_u)) | _any(r, columns.Q_U, columns.P_U, columns.Q_U)
    needs_c = _any(r, columns.U_C, columns.P_C, columns.D)
    wrong |= _lacks(m, needs_m) | _lacks(m_u, needs_u) | _lacks(cond, needs_c)

    net = places(at, sample, net_sample, net_channel, net_pixel, pixels, NET_DENSE)
    state = term(gain, read(x, here, inside & needs_x))
    extra = read(m_u, net, inside & needs_u)
    guided = term(g_c, read(m, net, inside & needs_m)) + term(g_u, extra)
    image = read(cond, here, inside & needs_c)
    clean = _clean_x0(r, per_sample, sample, state, guided, image)
    new = _linear(r, state, clean, guided, extra, image)
    if history is not None:
        past, lost = _past(history, slots, ring, r, columns.H_0, columns.SLOT_0, here, inside)
        new, wrong = new + past, wrong | lost
        past, lost = _past(history, slots, ring, r, columns.H_1, columns.SLOT_1, here, inside)
        new, wrong = new + past, wrong | lost
        past, lost = _past(history, slots, ring, r, columns.H_2, columns.SLOT_2, here, inside)
        new, wrong = new + past, wrong | lost
    else:
        wrong |= _any(r, columns.H_0, columns.H_1, columns.H_2)

    added, lost = _solver_noise(r, seeds, noise, v, sample, start, here, net, inside, BLOCK)
    new, wrong = new + added, wrong | lost
    if mask is not None:
        weights = places(at, sample, mask_sample, mask_channel, mask_pixel, pixels, MASK_DENSE)
        weight = read(mask, weights, inside)
        region, lost = _region(r, seeds, known, known_noise, sample, start, here, inside, BLOCK)
        mixed = weight * region + (1.0 - weight) * new
        new = tl.where(weight == 1, region, tl.where(weight == 0, new, mixed))
        wrong |= lost

    tl.debug_barrier()  # out may be x, and the history is read and written: every thread has read before any writes
    if history is not None:
        kept = inside & (wrong == 0)
        eps = _epsilon(r, state, clean, guided, extra, image)
        _push(history, slots, ring, r, columns.PUSH_0, columns.PUSH_0_SLOT, here, kept, state, clean, eps)
        _push(history, slots, ring, r, columns.PUSH_1, columns.PUSH_1_SLOT, here, kept, state, clean, eps)
    if x0_out is not None:
        tl.store(x0_out + here, tl.where(wrong, float("nan"), clean), mask=inside)
    tl.store(out + here, tl.where(wrong, float("nan"), new), mask=inside)


def launch(
    out: Tensor,
    x0_out: Tensor | None,
    history: Tensor | None,
    table: Tensor,
    counter: Tensor | None,
    row: int,
    x: Tensor,
    m: Tensor | None = None,
    m_u: Tensor | None = None,
    v: Tensor | None = None,
    cond: Tensor | None = None,
    seeds: Tensor | None = None,
    noise: Tensor | None = None,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    known_noise: Tensor | None = None,
    per_sample: Tensor | None = None,
) -> None:
    """Carry out one row; see `fastdiff.ops.solver_step`. Float32 tensors but the network's are dense."""
    if x.numel() == 0:
        return
    count, pixels, tiles = sizes(x)
    (m, m_u, v), net, net_dense = alike(m, m_u, v)
    (mask,), masks, mask_dense = alike(mask)
    slots = 0 if history is None else history.shape[0]
    with torch.cuda.device_of(x):
        solver_step_kernel[(x.shape[0] * tiles,)](
            *(out, x0_out, history, table, counter, x, m, m_u, v, dense(cond), seeds, dense(noise)),
            *(dense(known), mask, dense(known_noise), per_sample, row, table.shape[0], slots, x.numel()),
            *(*net, *masks, count, pixels, tiles),
            NET_DENSE=net_dense,
            MASK_DENSE=mask_dense,
            WIDE=count >= 2**31,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )


register(
    "solver_step_triton(Tensor(a!) out, Tensor(b!)? x0_out, Tensor(c!)? history, Tensor table, Tensor? counter, "
    "int row, Tensor x, Tensor? m=None, Tensor? m_u=None, Tensor? v=None, Tensor? cond=None, "
    "Tensor? seeds=None, Tensor? noise=None, Tensor? known=None, Tensor? mask=None, "
    "Tensor? known_noise=None, Tensor? per_sample=None) -> ()",
    launch,
)
