"""Run by test_triton.py in a process of its own, where the Triton kernels run in triton's interpreter on the CPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import add_noise, device, normal, philox, row, solver_step, use_backend

from . import noise_cases, step_cases
from .conftest import SEEDS, table_of

STEP = {"u_x": 1.25, "u_m": -0.75, "lo": -1.0, "hi": 1.0, "b": 0.5, "a": 0.25}


def test_the_interpreter_is_on():
    assert device.INTERPRETED and not device.WITHOUT_TRITON


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 20), max_size=2), batch=st.integers(0, 2)
)
def test_step_is_as_exact_as_torch(seed, sizes, batch):
    one = step_cases.drawn(seed, batch, sizes)
    step_cases.compare(step_cases.run("triton", one), one)


@settings(max_examples=15, deadline=None)
@given(case=noise_cases.cases(20, 3))
def test_add_noise_is_as_exact_as_torch(case):
    def ours(x0, **inputs):
        with use_backend("triton"):
            return add_noise(x0, **inputs, out=torch.full(x0.shape, torch.nan), return_noise=True)

    noise_cases.compare(ours, case)


@pytest.mark.parametrize("stream", [0, 1, 6])
@pytest.mark.parametrize("noise_row", [0, 999, 2**32 - 1])
def test_noise_is_that_of_the_definition(stream, noise_row):
    with use_backend("triton"):
        ours = normal(SEEDS, (5, 211), row=noise_row, stream=stream)
        rows = torch.full((5,), noise_row)
        assert torch.equal(ours, normal(SEEDS, (5, 211), row=rows, stream=stream))
    exact = philox.normal(SEEDS, 1055, row=noise_row, stream=stream, dtype=torch.float64).reshape(ours.shape)
    assert (ours - exact).abs().max() <= 3e-6


def test_a_sample_depends_on_itself_alone():
    x, m, seeds = torch.randn(3, 3, 8, 8), torch.randn(3, 3, 8, 8), torch.arange(3)
    table = table_of(STEP | {"s": 0.3})
    with use_backend("triton"):
        batch = solver_step(table, 0, x, m, seeds=seeds)
        alone = solver_step(table, 0, x[1:2], m[1:2], seeds=seeds[1:2])
        other = solver_step(table, 0, x, m.contiguous(memory_format=torch.channels_last), seeds=seeds)
    assert torch.equal(batch[1:2], alone) and torch.equal(batch, other)


def test_counter_and_in_place():
    x, m = torch.randn(2, 2, 11, 13), torch.randn(2, 2, 11, 13)
    table = torch.cat([table_of({"b": 1.0}), table_of(STEP)])
    with use_backend("triton"):
        fresh, counted = solver_step(table, 1, x, m), solver_step(table, torch.tensor([1]), x, m)
        same = x.clone()
        assert solver_step(table, 1, same, m, out=same) is same
        noised = same.clone()
        add_noise(noised, torch.ones(2), torch.ones(2), seeds=torch.arange(2), out=noised)
        other = add_noise(same, torch.ones(2), torch.ones(2), seeds=torch.arange(2))
    assert torch.equal(fresh, counted) and torch.equal(fresh, same) and torch.equal(noised, other)


@pytest.mark.parametrize("name", ["x", "m", "m_u", "cond", "noise", "history", "known", "v"])
def test_what_has_no_weight_is_not_read(name):
    shape = (1, 2, 5, 7)
    columns = {"a": 1.0, "u_m": 0.5} if name == "x" else {"b": 1.0, "a": 0.5, "u_x": 1.0}
    inputs = {key: torch.ones(shape) for key in ("m", "m_u", "cond", "noise", "known", "v")}
    inputs |= {"history": torch.ones(2, *shape), "mask": torch.zeros(shape)}
    x = torch.ones(shape)
    with use_backend("triton"):
        clean = solver_step(table_of(columns), 0, x, **inputs)
        (x if name == "x" else inputs[name]).fill_(float("nan"))
        assert torch.equal(solver_step(table_of(columns), 0, x, **inputs), clean)


def test_nan_in_what_is_read_stays_visible():
    x, m = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    m[1, 2, 3, 1] = float("nan")
    with use_backend("triton"):
        new = solver_step(table_of(STEP), 0, x, m)
    assert new.isnan().sum() == 1 and new[1, 2, 3, 1].isnan()


@pytest.mark.parametrize(
    ("columns", "counter"),
    [
        ({"b": 1.0}, 1),
        ({"b": 1.0}, -1),
        ({"h_0": 1.0, "slot_0": 2.0}, 0),
        ({"h_2": 1.0, "slot_2": -1.0}, 0),
        ({"u_m": 1.0}, 0),
        ({"q_u": 1.0}, 0),
        ({"d": 1.0}, 0),
        ({"s": 1.0}, 0),
        ({"i_s": 1.0}, 0),
        ({"i_y": 1.0}, 0),
    ],
)
def test_what_the_host_cannot_see_becomes_nan(columns, counter):
    """On a device nobody looks at the row before the kernel does; here the kernel is called past the checks."""
    x, history = torch.ones(1, 1, 4, 4), torch.ones(2, 1, 1, 4, 4)
    out, mask, before = torch.zeros_like(x), torch.ones_like(x), history.clone()
    with use_backend("triton"):
        solver_step(table_of({"b": 1.0}), 0, x)  # registers the op
    arguments = (out, None, history, table_of(columns), torch.tensor([counter]), 0, x)
    torch.ops.fastdiff.solver_step_triton(*arguments, mask=mask)
    assert out.isnan().all() and torch.equal(history, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x, m = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    dense, seeds = torch.empty(2, 3, 4, 5), torch.arange(2)
    with use_backend("triton"):
        solver_step(table_of(STEP), 0, x, m)
        add_noise(m, torch.ones(2), torch.ones(2), seeds=seeds)
        normal(seeds, (3,), stream=1)
    history = torch.randn(1, *x.shape)
    arguments = (dense.clone(), dense.clone(), history, table_of(STEP), None, 0, x, m)
    torch.library.opcheck(torch.ops.fastdiff.solver_step_triton.default, arguments)
    arguments = (dense.clone(), dense.clone(), m, torch.rand(2), torch.rand(2), seeds, None, 3, None, 0.1)
    torch.library.opcheck(torch.ops.fastdiff.add_noise_triton.default, arguments)
    torch.library.opcheck(torch.ops.fastdiff.normal_triton.default, (dense, seeds, None, 3, 1))


def test_compiles_as_one_graph():
    table, x, seeds = table_of(STEP | {"s": 0.3}), torch.randn(2, 3, 8, 8), torch.arange(2)
    both = torch.compile(
        lambda x, m: solver_step(
            table, 0, add_noise(x, seeds + 1.0, seeds + 1.0, seeds=seeds), m, seeds=seeds
        ),
        fullgraph=True,
        backend="aot_eager",
    )
    with use_backend("triton"), torch.no_grad():
        plain = solver_step(table, 0, add_noise(x, seeds + 1.0, seeds + 1.0, seeds=seeds), x, seeds=seeds)
        assert (both(x, x) - plain).abs().max() < 1e-5


def test_refusals_are_words():
    x = torch.randn(2, 3, 4, 4)
    with use_backend("triton"), pytest.raises(ValueError, match="x is not contiguous"):
        solver_step(table_of(STEP), 0, x.transpose(2, 3), x)
    with use_backend("triton"), pytest.raises(ValueError, match="it computes in float32"):
        add_noise(x.double(), torch.ones(2).double(), torch.ones(2).double(), seeds=torch.arange(2))
    with use_backend("triton"), pytest.raises(ValueError, match="it makes float32"):
        normal(torch.arange(2), (3,), stream=1, dtype=torch.float64)
    assert row.WIDTH == table_of({}).shape[1]
