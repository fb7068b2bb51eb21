"""Run by test_triton.py in a process of its own: vq_nearest and vq_code_sums in triton's interpreter on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastdiff.ops import use_backend, vq_code_sums, vq_nearest

from .conftest import assert_as_exact_as_torch
from .vq_cases import (
    EVERYTHING,
    assert_nearest,
    check_far_from_zero,
    check_not_a_number,
    check_ties,
    drawn,
    searched_on,
)

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = st.sampled_from(["dense", "channels first", "sliced"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    codes=st.integers(1, 150),
    width=st.integers(1, 140),
    layouts=st.tuples(LAYOUTS, LAYOUTS),
    dtypes=st.tuples(*[st.sampled_from(FLOATS)] * 2),
    mean=st.sampled_from([0.0, 3.0, 300.0]),
)
@example(seed=0, lead=[0], codes=3, width=4, layouts=("dense", "dense"), dtypes=(FLOATS[0],) * 2, mean=0.0)
@example(seed=1, lead=[], codes=1, width=1, layouts=("dense", "dense"), dtypes=(FLOATS[0],) * 2, mean=0.0)
@example(
    seed=2, lead=[130], codes=200, width=64, layouts=("dense", "sliced"), dtypes=(FLOATS[0],) * 2, mean=0.0
)
def test_nearest_is_as_exact_as_torch(seed, lead, codes, width, layouts, dtypes, mean):
    generator = np.random.default_rng(seed)
    z = (drawn(generator, (*lead, width), layouts[0]) + mean).to(dtypes[0])
    codebook = (drawn(generator, (codes, width), layouts[1]) + mean).to(dtypes[1])
    with use_backend("triton"):
        ours = vq_nearest(z, codebook, **EVERYTHING)
    assert ours.indices.dtype == torch.int64 and ours.indices.shape == z.shape[:-1]
    assert ours.quantised.dtype == codebook.dtype and torch.equal(ours.quantised, codebook[ours.indices])
    assert torch.equal(ours.counts, torch.bincount(ours.indices.reshape(-1), minlength=codes))
    assert_nearest(ours.indices, z, codebook)
    if z.numel():
        exact = (z.double() - codebook.double()[ours.indices]).square().sum(-1)
        same = (z.float() - codebook.float()[ours.indices]).square().sum(-1)
        assert_as_exact_as_torch(ours.distance, same, exact)


@pytest.mark.parametrize(
    ("shift", "dtype"), [(0.0, torch.float32), (1000.0, torch.float32), (0.0, torch.float16)]
)
def test_ties_go_to_the_lowest_index(shift, dtype):
    check_ties(searched_on("triton"), shift, (30, 8), 100, dtype)


def test_codes_far_from_zero_keep_their_digits():
    check_far_from_zero(searched_on("triton"), 100)


def test_what_is_not_a_number_is_never_nearest():
    check_not_a_number(searched_on("triton"))


def as_tf32(t):
    """Rounded to 10 bits of mantissa, as tensor cores read float32."""
    bits = t.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def test_three_products_of_tf32_are_float32():
    """What the interpreter does not show: the error of 3xTF32, modelled, against that of a float32 product."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(200, 64, generator=generator), torch.randn(300, 64, generator=generator)
    high, low = (as_tf32(a), as_tf32(b)), (as_tf32(a - as_tf32(a)), as_tf32(b - as_tf32(b)))
    three = high[0] @ high[1].T + (high[0] @ low[1].T + low[0] @ high[1].T)
    exact = a.double() @ b.double().T
    assert (three - exact).abs().max() <= 2 * (a @ b.T - exact).abs().max()
    assert (high[0] @ high[1].T - exact).abs().max() > 100 * (a @ b.T - exact).abs().max()
    halves = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        values = halves.view(dtype).float()
        values = values[values.isfinite()]
        assert torch.equal(as_tf32(values), values)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 900),
    codes=st.integers(1, 9),
    width=st.integers(1, 70),
    layout=LAYOUTS,
    dtype=st.sampled_from(FLOATS),
    skewed=st.booleans(),
)
def test_sums_are_as_exact_as_torch(seed, rows, codes, width, layout, dtype, skewed):
    generator = np.random.default_rng(seed)
    z = drawn(generator, (rows, width), layout).to(dtype)
    index = torch.from_numpy(generator.integers(0, codes, size=rows))
    index = torch.where(index > codes // 2, 0, index) if skewed else index
    with use_backend("triton"):
        ours = vq_code_sums(z, index, codes)
    with use_backend("torch"):
        plain, exact = vq_code_sums(z, index, codes), vq_code_sums(z.double(), index, codes)
    assert torch.equal(ours.counts, plain.counts)
    assert_as_exact_as_torch(ours.sums, plain.sums, exact.sums)


def test_opcheck():
    z, codebook = torch.randn(2, 3, 4, 8), torch.randn(5, 8)
    found = (torch.empty(2, 3, 4, dtype=torch.int64), torch.empty(2, 3, 4, 8), torch.empty(2, 3, 4))
    counts = torch.empty(5, dtype=torch.int64)
    with use_backend("triton"):
        index = vq_nearest(z, codebook).indices
        vq_code_sums(z, index, 5)
    arguments = (*found, counts, z, codebook, torch.zeros(8))
    torch.library.opcheck(torch.ops.fastdiff.vq_nearest_triton.default, arguments)
    arguments = (torch.empty(5, 8), counts, z, index)
    torch.library.opcheck(torch.ops.fastdiff.vq_code_sums_triton.default, arguments)


def test_compiles_as_one_graph():
    z, codebook = torch.randn(2, 5, 8), torch.randn(6, 8)
    search = torch.compile(
        lambda z: vq_nearest(z, codebook, **EVERYTHING), fullgraph=True, backend="aot_eager"
    )
    with use_backend("triton"):
        for compiled, eager in zip(search(z), vq_nearest(z, codebook, **EVERYTHING), strict=True):
            assert torch.equal(compiled, eager)


def test_refusals_are_words():
    with use_backend("triton"), pytest.raises(ValueError, match="z is torch.float64, it computes in float32"):
        vq_nearest(torch.zeros(3, 4).double(), torch.zeros(5, 4).double())
