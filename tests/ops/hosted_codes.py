"""Run by test_cuda.py in a process of its own: the CUDA nearest code on the host, in fibers, under sanitizers."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastdiff.ops.vq_nearest import Nearest, pivot_of

from .conftest import assert_as_exact_as_torch
from .vq_cases import assert_nearest, check_far_from_zero, check_not_a_number, check_ties, drawn

LIBRARY = ctypes.CDLL(os.environ["FASTDIFF_HOSTED"])
ELEMENTS = (torch.float32, torch.float16, torch.bfloat16)
LONG, POINTER = ctypes.c_int64, ctypes.c_void_p
LAYOUTS = st.sampled_from(["dense", "channels first", "sliced"])
#: Bytes of shared memory of a block: rows in pieces, whole rows.
PATHS = {"pieces": 0, "whole rows": 227 << 10}
DENSE = {"layouts": ("dense", "dense"), "dtypes": (torch.float32,) * 2, "mean": 0.0}


class Rows(ctypes.Structure):
    _fields_ = [
        ("data", POINTER),
        ("element", ctypes.c_int),
        *((name, LONG) for name in ("count", "width", "step")),
        ("dims", ctypes.c_int),
        ("sizes", LONG * 8),
        ("strides", LONG * 8),
    ]


class VqNearest(ctypes.Structure):
    _fields_ = [
        ("z", Rows),
        ("codes", Rows),
        *((name, POINTER) for name in ("pivot", "index", "quantised", "distance", "counts")),
        ("slots", ctypes.c_int),
    ]


def rows_of(t):
    """The Rows of a tensor, each leading dimension for itself."""
    lead, strides = t.shape[:-1], t.stride()[:-1]
    step = t.stride(-1) if t.shape[-1] > 1 else 1
    return Rows(
        *(t.data_ptr(), ELEMENTS.index(t.dtype), lead.numel(), t.shape[-1], step, len(lead)),
        *((LONG * 8)(*lead), (LONG * 8)(*strides)),
    )


def address(t):
    return None if t is None else t.data_ptr()


def hosted(z, codebook, limit=227 << 10, *, everything=True):
    """(what was found, panels of rows); what nobody writes stays not a number, or -1."""
    lead, pivot = z.shape[:-1], pivot_of(z, codebook)
    found = Nearest(torch.full(lead, -1))
    if everything:
        found = Nearest(
            found.indices,
            torch.full(z.shape, float("nan"), dtype=codebook.dtype),
            torch.full(lead, float("nan")),
            torch.zeros(codebook.shape[0], dtype=torch.int64),
        )
    arguments = VqNearest(
        rows_of(z), rows_of(codebook), address(pivot), *(address(t) for t in found), slots=0
    )
    slots = LIBRARY.vq_nearest(ctypes.byref(arguments), LONG(limit))
    return found, slots


def found_by_host(z, codebook):
    return hosted(z, codebook)[0]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.lists(st.integers(0, 9), min_size=0, max_size=3),
    codes=st.integers(1, 300),
    width=st.integers(1, 90),
    layouts=st.tuples(LAYOUTS, LAYOUTS),
    dtypes=st.tuples(*[st.sampled_from(ELEMENTS)] * 2),
    mean=st.sampled_from([0.0, 3.0, 300.0]),
)
@example(seed=0, lead=[0], codes=3, width=4, **DENSE)
@example(seed=1, lead=[], codes=1, width=1, **DENSE)
@example(seed=2, lead=[130], codes=257, width=64, **DENSE)
@example(seed=3, lead=[3, 40], codes=40, width=48, **DENSE | {"dtypes": (torch.bfloat16, torch.float16)})
@example(seed=4, lead=[2, 7], codes=128, width=33, **DENSE | {"layouts": ("channels first", "sliced")})
def test_nearest_is_as_exact_as_torch(path, seed, lead, codes, width, layouts, dtypes, mean):
    generator = np.random.default_rng(seed)
    z = (drawn(generator, (*lead, width), layouts[0]) + mean).to(dtypes[0])
    codebook = (drawn(generator, (codes, width), layouts[1]) + mean).to(dtypes[1])
    ours, _ = hosted(z, codebook, PATHS[path])
    if not z.numel():
        return
    assert torch.equal(ours.quantised, codebook[ours.indices])
    assert torch.equal(ours.counts, torch.bincount(ours.indices.reshape(-1), minlength=codes))
    assert_nearest(ours.indices, z, codebook)
    exact = (z.double() - codebook.double()[ours.indices]).square().sum(-1)
    same = (z.float() - codebook.float()[ours.indices]).square().sum(-1)
    assert_as_exact_as_torch(ours.distance, same, exact)


@pytest.mark.parametrize(
    ("path", "width", "panels"), [("pieces", 64, 2), ("whole rows", 64, 4), ("whole rows", 9, 2)]
)
def test_each_path_is_taken_and_gives_the_same_codes(path, width, panels):
    z, codebook = torch.randn(150, width), torch.randn(140, width)
    ours, slots = hosted(z, codebook, PATHS[path])
    assert slots == panels
    assert torch.equal(ours.indices, hosted(z, codebook, 0, everything=False)[0].indices)
    assert torch.equal(ours.indices[:40], hosted(z[:40], codebook, PATHS[path])[0].indices)


@pytest.mark.parametrize(
    ("shift", "dtype"), [(0.0, torch.float32), (1000.0, torch.float32), (0.0, torch.float16)]
)
def test_ties_go_to_the_lowest_index(shift, dtype):
    check_ties(found_by_host, shift, (30, 8), 100, dtype)


def test_codes_far_from_zero_keep_their_digits():
    check_far_from_zero(found_by_host, 100)


def test_what_is_not_a_number_is_never_nearest():
    check_not_a_number(found_by_host)


def test_codes_too_long_to_square_are_never_nearest():
    z, codebook = torch.randn(5, 6), torch.full((3, 6), 1e30)
    ours, _ = hosted(z, codebook, everything=False)
    assert (ours.indices == 0).all()
