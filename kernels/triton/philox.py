"""Noise inside a kernel: Philox4x32-10 and Box-Muller as `fastdiff.ops.philox` defines them, four numbers per counter.

Logarithm, sine and cosine are polynomials in float32 whose range reduction is exact in integers: the same ones as
in `csrc/cpu/noise_tile.h`. No slow path of a library, no stack, and the interpreter computes what the device does.
"""

from __future__ import annotations

import triton
import triton.language as tl

MULTIPLIER_0: tl.constexpr = tl.constexpr(0xD2511F53)
MULTIPLIER_1: tl.constexpr = tl.constexpr(0xCD9E8D57)
WEYL_0: tl.constexpr = tl.constexpr(0x9E3779B9)
WEYL_1: tl.constexpr = tl.constexpr(0xBB67AE85)


@triton.jit
def philox(c0, c1, c2, c3, seed):
    """Ten rounds on four uint32 words of a counter, with the two halves of an int64 seed as key."""
    k0 = (seed & 0xFFFFFFFF).to(tl.uint32)
    k1 = ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, MULTIPLIER_0), c0 * MULTIPLIER_0
        high1, low1 = tl.umulhi(c2, MULTIPLIER_1), c2 * MULTIPLIER_1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, WEYL_0, sanitize_overflow=False)
        k1 = tl.add(k1, WEYL_1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def minus_two_log(word):
    """-2 ln u for u = ((word >> 9) + 1/2) * 2**-23; relative error below 1e-7."""
    whole = (word >> 9).to(tl.int32).to(tl.float32) + 0.5
    bits = whole.to(tl.int32, bitcast=True)
    root = 0x3F3504F3  # sqrt(1/2)
    exponent = ((bits - (root + (23 << 23))) >> 23).to(tl.float32)
    f = (((bits - root) & 0x7FFFFF) + root).to(tl.float32, bitcast=True) - 1.0
    q = -1.746967266e-01 * f + 2.861503794e-01
    q = q * f - 2.983594945e-01
    q = q * f + 3.314101718e-01
    q = q * f - 3.992414414e-01
    q = q * f + 5.000351047e-01
    q = q * f - 6.666790045e-01
    q = q * f + 9.999998321e-01
    return exponent * -1.3862943611 + (f * f * q - 2.0 * f)


@triton.jit
def cos_sin(word):
    """cos and sin of 2 pi u, u as above; absolute error below 1e-7."""
    turned = (word >> 9) + (1 << 20)  # in 2**-23 turns, plus an eighth of a turn
    r = (turned & 0x1FFFFF).to(tl.int32).to(tl.float32) * (2.0**-21) + (2.0**-22 - 0.5)
    z = r * r
    s = -4.602176996e-03 * z + 7.968022807e-02
    s = s * z - 6.459634786e-01
    s = (s * z + 1.570796322e00) * r
    c = -2.042625017e-02 * z + 2.536063619e-01
    c = c * z - 1.233697954e00
    c = c * z + 1.0
    odd = (turned & (1 << 21)) != 0
    cos_bits = tl.where(odd, s, c).to(tl.uint32, bitcast=True)
    sin_bits = tl.where(odd, c, s).to(tl.uint32, bitcast=True)
    cos = cos_bits ^ (((turned + (1 << 21)) << 9) & 0x80000000)
    sin = sin_bits ^ ((turned << 9) & 0x80000000)
    return cos.to(tl.float32, bitcast=True), sin.to(tl.float32, bitcast=True)


@triton.jit
def box_muller(first, second):
    """Two standard normal numbers from two words."""
    radius = tl.sqrt(minus_two_log(first))
    cos, sin = cos_sin(second)
    return radius * cos, radius * sin


@triton.jit
def normals(seed, row, stream, start, BLOCK: tl.constexpr):
    """(BLOCK,) normal numbers: elements start ... start + BLOCK - 1 of one sample.

    Args:
        seed: int64 scalar.
        row: uint32 scalar.
        stream: uint32 scalar.
        start: first element, int32 or int64 scalar, a multiple of BLOCK.
        BLOCK: a power of two, at least 4.
    """
    block = start.to(tl.int64) // 4
    low = (block & 0xFFFFFFFF).to(tl.uint32) + tl.arange(0, BLOCK // 4).to(tl.uint32)
    high = ((block >> 32) & 0xFFFFFFFF).to(tl.uint32)
    w0, w1, w2, w3 = philox(low, row, stream, high, seed)
    n0, n1 = box_muller(w0, w1)
    n2, n3 = box_muller(w2, w3)
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (BLOCK,))


@triton.jit
def row_of(rows, row, sample):
    """The noise row of a sample as uint32: rows[sample] where a pointer is given, else row."""
    if rows is not None:
        value = tl.load(rows + sample)
    else:
        value = tl.full((), row, tl.int64)
    return (value & 0xFFFFFFFF).to(tl.uint32)
