"""Run by test_cuda.py in a process of its own: the bodies of the CUDA kernels on the host, under sanitizers."""

import ctypes
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import philox

from . import noise_cases, step_cases
from .conftest import SEEDS, table_of

LIBRARY = ctypes.CDLL(os.environ["FASTDIFF_HOSTED"])
ELEMENTS = (torch.float32, torch.float16, torch.bfloat16)
LONG, POINTER = ctypes.c_int64, ctypes.c_void_p


class Source(ctypes.Structure):
    _fields_ = [
        ("data", POINTER),
        ("element", ctypes.c_int),
        ("sample_stride", LONG),
        ("dims", ctypes.c_int),
        ("sizes", LONG * 8),
        ("strides", LONG * 8),
    ]


class Samples(ctypes.Structure):
    _fields_ = [("batch", LONG), ("count", LONG)]


class Normal(ctypes.Structure):
    _fields_ = [
        ("samples", Samples),
        ("seeds", POINTER),
        ("rows", POINTER),
        ("row", LONG),
        ("stream", ctypes.c_uint32),
        ("out", POINTER),
    ]


class AddNoise(ctypes.Structure):
    _fields_ = [
        ("samples", Samples),
        ("channel", LONG),
        ("x0", Source),
        ("noise", Source),
        *((name, POINTER) for name in ("alpha", "sigma", "seeds", "rows")),
        ("row", LONG),
        ("offset", ctypes.c_float),
        ("out", POINTER),
        ("noise_out", POINTER),
    ]


SOURCES = ("m", "m_u", "v", "cond", "known", "mask", "noise", "known_noise")


class SolverStep(ctypes.Structure):
    _fields_ = [
        ("samples", Samples),
        ("table", POINTER),
        ("table_rows", LONG),
        ("counter", POINTER),
        ("row", LONG),
        ("per_sample", POINTER),
        ("seeds", POINTER),
        *((name, Source) for name in SOURCES),
        ("x", POINTER),
        ("history", POINTER),
        ("slots", LONG),
        ("x0_out", POINTER),
        ("out", POINTER),
    ]


def address(tensor):
    return None if tensor is None else tensor.data_ptr()


def source_of(t):
    """The Source of a tensor, neighbouring dimensions merged where they are dense, as csrc/bindings/tensors.h does."""
    if t is None:
        return Source()
    merged = []
    for size, stride in zip(t.shape[1:], t.stride()[1:], strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    merged = merged or [(1, 1)]
    sizes, strides = zip(*merged, strict=True)
    long8 = LONG * 8
    return Source(
        t.data_ptr(), ELEMENTS.index(t.dtype), t.stride(0), len(merged), long8(*sizes), long8(*strides)
    )


def samples_of(x):
    return Samples(x.shape[0], x.numel() // max(1, x.shape[0]))


def hosted_step(table, x, history, x0_out, out, *, counter=None, row=0, **inputs):
    arguments = SolverStep(
        samples=samples_of(x),
        **{name: address(t) for name, t in (("table", table), ("counter", counter), ("x", x), ("out", out))},
        **{name: address(t) for name, t in (("history", history), ("x0_out", x0_out))},
        **{name: address(inputs.get(name)) for name in ("per_sample", "seeds")},
        **{name: source_of(inputs.get(name)) for name in SOURCES},
        table_rows=table.shape[0],
        row=row,
        slots=0 if history is None else history.shape[0],
    )
    LIBRARY.solver_step(ctypes.byref(arguments))


def empty(shape, dtype=torch.float32):
    """Not a number until somebody writes it."""
    return torch.full(shape, float("nan"), dtype=dtype)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    batch=st.integers(0, 4),
)
def test_step_is_as_exact_as_torch(seed, sizes, batch):
    one = step_cases.drawn(seed, batch, sizes)
    ours = [empty(one.x.shape), empty(one.x.shape), one.history.clone()]
    counter = torch.zeros(1, dtype=torch.int64)
    hosted_step(table_of(one.columns), one.x, ours[2], ours[1], ours[0], counter=counter, **one.inputs)
    step_cases.compare(ours, one)


def hosted_noise(x0, alpha, sigma, noise, seeds, row, offset):
    out, noise_out = empty(x0.shape), empty(x0.shape)
    arguments = AddNoise(
        samples=samples_of(x0),
        channel=x0[0].numel() // x0.shape[1] if x0.shape[0] else 1,
        x0=source_of(x0),
        noise=source_of(noise),
        **{name: address(t) for name, t in (("alpha", alpha), ("sigma", sigma), ("seeds", seeds))},
        **{name: address(t) for name, t in (("rows", row), ("out", out), ("noise_out", noise_out))},
        offset=offset,
    )
    LIBRARY.add_noise(ctypes.byref(arguments))
    return out, noise_out


@settings(max_examples=100, deadline=None)
@given(case=noise_cases.cases(40, 4))
def test_add_noise_is_as_exact_as_torch(case):
    noise_cases.compare(hosted_noise, case)


@pytest.mark.parametrize("count", [1, 1021, 4096])
@pytest.mark.parametrize(("noise_row", "stream"), [(0, 0), (999, 1), (2**32 - 1, 6)])
def test_noise_is_that_of_the_definition(count, noise_row, stream):
    ours = empty((5, count))
    arguments = Normal(Samples(5, count), address(SEEDS), None, noise_row, stream, address(ours))
    LIBRARY.normal(ctypes.byref(arguments))
    exact = philox.normal(SEEDS, count, row=noise_row, stream=stream, dtype=torch.float64)
    assert (ours - exact).abs().max() <= 3e-6


def test_in_place():
    x, m, table = torch.randn(2, 3, 9, 9), torch.randn(2, 3, 9, 9), table_of({"b": 0.5, "u_m": 2.0, "a": 1.0})
    out = empty(x.shape)
    hosted_step(table, x, None, None, out, m=m)
    hosted_step(table, x, None, None, x, m=m)
    assert torch.equal(x, out)


@pytest.mark.parametrize("name", ["m", "m_u", "cond", "noise", "known", "v", "mask"])
def test_what_has_no_weight_is_not_read(name):
    """A source that must not be read points nowhere; reading it would crash."""
    x, out = torch.ones(1, 2, 5, 7), empty((1, 2, 5, 7))
    nowhere = {"data": 64, "element": 0, "sample_stride": 70, "dims": 1, "sizes": (LONG * 8)(70)}
    source = Source(**nowhere, strides=(LONG * 8)(1)) if name != "mask" else Source()
    arguments = SolverStep(
        samples=samples_of(x),
        table_rows=1,
        table=address(table := table_of({"b": 2.0})),
        x=address(x),
        out=address(out),
    )
    setattr(arguments, name, source)
    LIBRARY.solver_step(ctypes.byref(arguments))
    assert torch.equal(out, 2 * x) and table.shape[0] == 1


@pytest.mark.parametrize(
    ("columns", "counter"),
    [({"b": 1.0}, 1), ({"b": 1.0}, -1), ({"h_0": 1.0, "slot_0": 2.0}, 0), ({"h_2": 1.0, "slot_2": -1.0}, 0)]
    + [({"push_1": 1.0, "push_1_slot": 7.0}, 0)]
    + [({name: 1.0}, 0) for name in ("u_m", "q_u", "d", "s", "i_s", "i_y")],
)
def test_what_the_host_cannot_see_becomes_nan(columns, counter):
    x, history = torch.ones(1, 1, 4, 4), torch.ones(2, 1, 1, 4, 4)
    out, mask, index = torch.zeros_like(x), torch.ones_like(x), torch.tensor([counter])
    hosted_step(table_of(columns), x, history, None, out, counter=index, mask=mask)
    assert out.isnan().all() and (history == 1).all()


def test_halves_are_widened_exactly():
    bits = torch.arange(65536, dtype=torch.int32).to(torch.int16).reshape(1, 1, 65536)
    for dtype in (torch.float16, torch.bfloat16):
        m = bits.view(dtype)
        out = empty(m.shape)
        hosted_step(table_of({"q_m": 1.0}), out.clone(), None, None, out, m=m)
        assert torch.equal(out.nan_to_num(nan=7.0), m.float().nan_to_num(nan=7.0))
