"""The nearest code: every backend against float64, its rule for ties, and what it must never do."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import use_backend, vq_nearest

from .conftest import assert_as_exact_as_torch, needs_cpp
from .vq_cases import (
    EVERYTHING,
    assert_nearest,
    check_far_from_zero,
    check_not_a_number,
    check_ties,
    drawn,
    searched_on,
)

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


@needs_cpp
@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    codes=st.integers(1, 100),
    width=st.integers(1, 70),
    layouts=st.tuples(*[st.sampled_from(["dense", "channels first", "sliced"])] * 2),
    dtypes=st.tuples(*[st.sampled_from([torch.float32, torch.float16, torch.bfloat16])] * 2),
    mean=st.sampled_from([0.0, 3.0, 300.0]),
)
def test_cpp_is_as_exact_as_torch(seed, lead, codes, width, layouts, dtypes, mean):
    generator = np.random.default_rng(seed)
    z = (drawn(generator, (*lead, width), layouts[0]) + mean).to(dtypes[0])
    codebook = (drawn(generator, (codes, width), layouts[1]) + mean).to(dtypes[1])
    with use_backend("cpp"):
        ours = vq_nearest(z, codebook, **EVERYTHING)
    with use_backend("torch"):
        plain = vq_nearest(z, codebook, **EVERYTHING)
    assert ours.indices.dtype == torch.int64 and ours.indices.shape == z.shape[:-1]
    assert ours.quantised.dtype == codebook.dtype and torch.equal(ours.quantised, codebook[ours.indices])
    assert torch.equal(ours.counts, torch.bincount(ours.indices.reshape(-1), minlength=codes))
    assert plain.quantised.dtype == codebook.dtype and plain.indices.shape == z.shape[:-1]
    for found in (ours, plain):
        assert_nearest(found.indices, z, codebook)
    if z.numel():
        exact = (z.double() - codebook.double()[ours.indices]).square().sum(-1)
        same = (z.float() - codebook.float()[ours.indices]).square().sum(-1)
        assert_as_exact_as_torch(ours.distance, same, exact)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "codes", "width"), [(3000, 700, 64), (200, 20000, 16), (50, 3000, 256)])
def test_float64_agrees_where_float32_can_tell(backend, rows, codes, width):
    generator = torch.Generator().manual_seed(rows)
    z, codebook = (torch.randn(n, width, generator=generator) for n in (rows, codes))
    with use_backend(backend):
        index = vq_nearest(z, codebook).indices
    exact = torch.cdist(z.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    two = exact.topk(2, largest=False).values
    apart = two[:, 1] - two[:, 0] > 4e-6 * two[:, 0]
    assert apart.float().mean() > 0.99
    assert torch.equal(index[apart], exact.argmin(1)[apart])


@needs_cpp
def test_codes_far_from_zero_keep_their_digits():
    check_far_from_zero(searched_on("cpp"), 500)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_ties_go_to_the_lowest_index(backend, shift):
    """The codebook repeats itself across chunks."""
    check_ties(searched_on(backend), shift, (60, 50), 400, torch.float32)


@needs_cpp
def test_duplicates_in_chunks_far_apart():
    codebook = torch.randn(1000, 512).repeat(8, 1)
    with use_backend("cpp"):
        index = vq_nearest(codebook[7000:] + 1e-3, codebook).indices
    assert torch.equal(index, torch.arange(1000))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_a_number_is_never_nearest(backend):
    check_not_a_number(searched_on(backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("lead", "codes"), [((0,), 5), ((2, 0, 3), 5), ((7,), 1), ((), 4)])
def test_empty_single_and_plain_vectors(backend, lead, codes):
    z, codebook = torch.randn(*lead, 6), torch.randn(codes, 6)
    with use_backend(backend):
        found = vq_nearest(z, codebook, **EVERYTHING)
    assert found.indices.shape == lead and found.quantised.shape == z.shape and found.distance.shape == lead
    assert found.counts.sum() == z.numel() // 6
    assert codes > 1 or not found.indices.any()


@needs_cpp
def test_threads_do_not_change_anything():
    z, codebook = torch.randn(2000, 24), torch.randn(300, 24)
    before = torch.get_num_threads()
    with use_backend("cpp"):
        one, *others = (
            (torch.set_num_threads(n), vq_nearest(z, codebook, **EVERYTHING))[1] for n in (1, 2, 3)
        )
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in others for a, b in zip(one, other, strict=True))


def test_no_gradient_passes():
    z, codebook = torch.randn(5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    found = vq_nearest(z, codebook, return_quantised=True, return_distance=True)
    assert not found.quantised.requires_grad and not found.distance.requires_grad


def test_only_what_is_asked_for():
    found = vq_nearest(torch.randn(5, 3), torch.randn(4, 3))
    assert found.quantised is None and found.distance is None and found.counts is None


MEMORY = """
import resource, torch
from fastdiff.ops import use_backend, vq_nearest
torch.set_num_threads(2)
z, codebook = torch.ones(200, 64, 1000).movedim(1, -1), torch.ones(64, 500).bfloat16().T
with use_backend("cpp"):
    vq_nearest(z[:2], codebook[:64])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    vq_nearest(z, codebook)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@needs_cpp
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts KiB on Linux only")
def test_peak_memory():
    """400 MB of distances are never there, nor 51 MB of a dense copy; beyond the indices 8 MiB is the limit."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    indices = 200 * 1000 * 8 // 1024
    assert int(run.stdout) - indices <= 8 * 1024


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend):
    z, codebook = torch.randn(2, 5, 8), torch.randn(6, 8)
    search = torch.compile(
        lambda z: vq_nearest(z, codebook, **EVERYTHING), fullgraph=True, backend="aot_eager"
    )
    with use_backend(backend):
        for compiled, eager in zip(search(z), vq_nearest(z, codebook, **EVERYTHING), strict=True):
            assert torch.equal(compiled, eager) or torch.allclose(compiled, eager, rtol=1e-6)


@needs_cpp
@pytest.mark.parametrize("first", [False, True])
def test_opcheck(first):
    z = torch.randn(2, 8, 3, 4).movedim(1, -1) if first else torch.randn(2, 3, 4, 8)
    found = (
        torch.empty(2, 3, 4, dtype=torch.int64),
        torch.empty(2, 3, 4, 8),
        torch.empty(2, 3, 4),
        torch.empty(5, dtype=torch.int64),
    )
    torch.library.opcheck(torch.ops.fastdiff.vq_nearest_cpp.default, (*found, z, torch.randn(5, 8)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z": [1.0]}, "z must be a tensor"),
        ({"codebook": None}, "codebook must be a tensor"),
        ({"z": torch.zeros(3, 4, dtype=torch.int32)}, "z must be float32"),
        ({"codebook": torch.zeros(5, 4, dtype=torch.bool)}, "codebook must be float32"),
        ({"codebook": torch.zeros(4)}, r"codebook must be \(K, D\)"),
        ({"codebook": torch.zeros(0, 4)}, r"codebook must be \(K, D\)"),
        ({"z": torch.zeros(3, 0), "codebook": torch.zeros(5, 0)}, r"codebook must be \(K, D\)"),
        ({"z": torch.zeros(3, 5)}, r"z must be \(\.\.\., 4\)"),
        ({"z": torch.tensor(1.0)}, r"z must be \(\.\.\., 4\)"),
        ({"z": torch.zeros(3, 4, device="meta")}, r"z must be \(\.\.\., 4\)"),
        ({"z": torch.zeros(3, 4, dtype=torch.float64)}, "codebook must be float64 where z is"),
    ],
)
def test_wrong_input(backend, changes, message):
    inputs = {"z": torch.zeros(3, 4), "codebook": torch.zeros(5, 4)} | changes
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"vq_nearest: {message}"):
        vq_nearest(**inputs, **EVERYTHING)


@needs_cpp
def test_float64_is_refused_by_the_kernel_in_words():
    with use_backend("cpp"), pytest.raises(ValueError, match="z is torch.float64, it computes in float32"):
        vq_nearest(torch.zeros(3, 4).double(), torch.zeros(5, 4).double())


@needs_cpp
def test_results_that_share_memory_are_refused_by_the_kernel():
    """Counting codes that another result has overwritten would write anywhere."""
    memory, z = torch.zeros(9, dtype=torch.int64), torch.randn(8, 4)
    index, counts = memory[:8], memory[6:]
    distance = memory.view(torch.float32)[:8]
    for results in ((index, None, None, counts), (index, None, distance, None)):
        with pytest.raises(RuntimeError, match="vq_nearest: what is written must not share memory"):
            torch.ops.fastdiff.vq_nearest_cpp(*results, z, torch.randn(3, 4))
