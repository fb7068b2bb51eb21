"""Sums of the rows of each code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import use_backend, vq_code_sums

from .conftest import assert_as_exact_as_torch, needs_cpp

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


@needs_cpp
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.lists(st.integers(0, 30), min_size=0, max_size=3),
    codes=st.integers(1, 50),
    width=st.integers(1, 70),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    first=st.booleans(),
)
def test_cpp_is_as_exact_as_torch(seed, lead, codes, width, dtype, first):
    generator = np.random.default_rng(seed)
    z = torch.from_numpy(generator.normal(size=(*lead, width))).to(dtype)
    z = z.movedim(-1, 0).contiguous().movedim(0, -1) if first else z
    index = torch.from_numpy(generator.integers(0, codes, size=tuple(lead))).reshape(tuple(lead))
    with use_backend("torch"):
        exact, plain = vq_code_sums(z.double(), index, codes), vq_code_sums(z, index, codes)
    with use_backend("cpp"):
        ours = vq_code_sums(z, index, codes)
    assert torch.equal(ours.counts, exact.counts) and ours.sums.dtype == torch.float32
    assert_as_exact_as_torch(ours.sums, plain.sums, exact.sums)


@needs_cpp
def test_a_code_that_takes_all_rows_keeps_its_digits():
    z = 1 + torch.rand(200_000, 3)
    with use_backend("cpp"):
        sums = vq_code_sums(z, torch.ones(200_000, dtype=torch.int64), 2).sums
    assert torch.allclose(sums[1].double(), z.double().sum(0), rtol=1e-6) and not sums[0].any()


@needs_cpp
def test_threads_do_not_change_anything():
    z, index, before = torch.randn(5000, 20), torch.randint(0, 40, (5000,)), torch.get_num_threads()
    with use_backend("cpp"):
        one, two = ((torch.set_num_threads(n), vq_code_sums(z, index, 40).sums)[1] for n in (1, 2))
    torch.set_num_threads(before)
    assert torch.equal(one, two)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend):
    z, index = torch.randn(6, 4), torch.tensor([0, 2, 2, 1, 0, 2])
    add = torch.compile(lambda z, index: vq_code_sums(z, index, 3), fullgraph=True, backend="aot_eager")
    with use_backend(backend):
        assert torch.allclose(add(z, index).sums, vq_code_sums(z, index, 3).sums)


@needs_cpp
def test_opcheck():
    arguments = (torch.empty(3, 4), torch.empty(3, dtype=torch.int64), torch.randn(6, 4), torch.arange(6) % 3)
    torch.library.opcheck(torch.ops.fastdiff.vq_code_sums_cpp.default, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z": 1.0}, "z must be a tensor"),
        ({"z": torch.zeros(3, 4, dtype=torch.int64)}, "z must be float32"),
        ({"index": [0, 1, 2]}, "index must be a tensor"),
        ({"index": torch.zeros(3)}, "index must be torch.int64"),
        ({"index": torch.arange(4)}, "index must be torch.int64"),
        ({"index": torch.tensor([0, 1, 5])}, r"index must be in \[0, 5\), got values from 0 to 5"),
        ({"index": torch.tensor([0, -1, 2])}, r"index must be in \[0, 5\)"),
        ({"codes": 0}, "codes must be a whole number"),
        ({"codes": 2.0}, "codes must be a whole number"),
    ],
)
def test_wrong_input(backend, changes, message):
    inputs = {"z": torch.zeros(3, 4), "index": torch.arange(3), "codes": 5} | changes
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"vq_code_sums: {message}"):
        vq_code_sums(**inputs)
