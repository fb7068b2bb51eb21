"""One row of a step table: every backend against float64, every wrong input against words."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import philox, row, solver_step, use_backend
from fastdiff.ops.solver_step import reference

from .conftest import needs_cpp, table_of
from .step_cases import compare, drawn, run

STEP = {"u_x": 1.25, "u_m": -0.75, "lo": -1.0, "hi": 1.0, "b": 0.5, "a": 0.25}


@needs_cpp
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    batch=st.integers(0, 5),
)
def test_cpp_is_as_exact_as_torch(seed, sizes, batch):
    one = drawn(seed, batch, sizes)
    compare(run("cpp", one), one)


BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_formula_by_hand(backend):
    columns = STEP | {
        "gain": 2.0,
        "g_c": 3.0,
        "g_u": -2.0,
        "u_c": 0.5,
        "rho": 0.5,
        "p_x": 1.0,
        "p_0": -1.0,
        "d": 0.125,
    }
    columns |= {"h_0": 0.25, "slot_0": 1.0, "push_0": 3.0, "push_0_slot": 0.0}
    x, m, m_u, c = (torch.full((1, 1), value) for value in (0.3, 0.4, 0.1, -0.2))
    history = torch.tensor([0.0, 8.0]).reshape(2, 1, 1)
    with use_backend(backend):
        new = solver_step(table_of(columns), 0, x, m, m_u=m_u, cond=c, history=history)
    state, guided = 2 * 0.3, 3 * 0.4 - 2 * 0.1
    x0 = 0.5 * min(max(1.25 * state - 0.75 * guided + 0.5 * -0.2, -1), 1)
    assert new.item() == pytest.approx(0.5 * state + 0.25 * x0 + 0.125 * -0.2 + 0.25 * 8.0, rel=1e-6)
    assert history[0].item() == pytest.approx(state - x0, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["x", "m", "m_u", "cond", "noise", "history", "known", "v"])
def test_what_has_no_weight_is_not_read(backend, name):
    shape = (2, 3, 5, 7)
    columns = {"a": 1.0, "u_m": 0.5} if name == "x" else {"b": 1.0, "a": 0.5, "u_x": 1.0}
    inputs = {key: torch.ones(shape) for key in ("m", "m_u", "cond", "noise", "known", "v")}
    inputs |= {"history": torch.ones(2, *shape), "mask": torch.zeros(shape)}
    x = torch.ones(shape)
    with use_backend(backend):
        clean = solver_step(table_of(columns), 0, x, **inputs)
        (x if name == "x" else inputs[name]).fill_(float("nan"))
        assert torch.equal(solver_step(table_of(columns), 0, x, **inputs), clean)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_what_is_read_stays_visible(backend):
    x, m = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    m[1, 2, 3, 1] = float("nan")
    with use_backend(backend):
        new = solver_step(table_of(STEP), 0, x, m)
    assert new.isnan().sum() == 1 and new[1, 2, 3, 1].isnan()


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_is_the_named_one(backend):
    x, seeds = torch.zeros(3, 2, 9, 5), torch.tensor([4, 5, 6])
    columns = {"s": 0.5, "l_0": -1.0, "stream": 3.0, "noise_row": 77.0}
    with use_backend(backend):
        new = solver_step(table_of(columns), 0, x, seeds=seeds)
    noise = philox.normal(seeds, 90, row=77, stream=3, dtype=torch.float64).reshape(x.shape)
    assert (new - 0.5 * np.exp(-0.5) * noise).abs().max() < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_variance_beyond_float32_is_infinite_not_large(backend):
    v = torch.tensor([[-400.0, 0.0, 100.0, 170.0, 178.0, 1e4]])
    columns, ones = {"s": 1.0, "l_1": 1.0, "noise_row": 1.0}, torch.ones(1, 6)
    with use_backend(backend):
        out = solver_step(table_of(columns), 0, ones, ones, v=v, noise=ones)
        assert torch.equal(solver_step(table_of(columns), False, ones, ones, v=v, noise=ones), out)
    torch.testing.assert_close(out[0, :5], (v[0, :5].double() / 2).exp().float(), rtol=1e-5, atol=1e-37)
    assert out[0, 5] == float("inf") and out[0, 4] == float("inf")


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_place_and_counter(backend):
    x, m = torch.randn(3, 2, 11, 13), torch.randn(3, 2, 11, 13)
    table = torch.cat([table_of({"b": 1.0}), table_of(STEP)])
    with use_backend(backend):
        fresh = solver_step(table, 1, x, m)
        counted = solver_step(table, torch.tensor([1]), x, m)
        same = x.clone()
        assert solver_step(table, 1, same, m, out=same) is same
    assert torch.equal(fresh, counted) and torch.equal(fresh, same)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sample_does_not_depend_on_the_batch(backend):
    x, m, seeds = torch.randn(64, 3, 32, 32), torch.randn(64, 3, 32, 32), torch.arange(64)
    table = table_of(STEP | {"s": 0.3})
    with use_backend(backend):
        batch = solver_step(table, 0, x, m, seeds=seeds)
        alone = solver_step(table, 0, x[17:18], m[17:18], seeds=seeds[17:18])
        other = solver_step(table, 0, x, m.contiguous(memory_format=torch.channels_last), seeds=seeds)
    assert torch.equal(batch[17:18], alone) and torch.equal(batch, other)


@needs_cpp
def test_odd_sizes_reach_every_element():
    x = torch.randn(1, 3, 257, 129)
    assert torch.equal(solver_step(table_of({"b": 2.0}), 0, x), 2 * x)


def test_gradients_flow_through_the_reference():
    x = torch.randn(2, 3, 4, 4)
    m = torch.randn(2, 3, 4, 4, requires_grad=True)
    solver_step(table_of({"b": 1.0, "u_m": 0.5, "a": 2.0}), 0, x, m).sum().backward()
    assert torch.allclose(m.grad, torch.ones_like(m))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend):
    table, x, m, seeds = (
        table_of(STEP | {"s": 0.3}),
        torch.randn(2, 3, 8, 8),
        torch.randn(2, 3, 8, 8),
        torch.arange(2),
    )
    step = torch.compile(
        lambda x, m: solver_step(table, 0, x, m, seeds=seeds), fullgraph=True, backend="aot_eager"
    )
    with use_backend(backend), torch.no_grad():
        assert (step(x, m) - solver_step(table, 0, x, m, seeds=seeds)).abs().max() < 1e-5


@needs_cpp
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x, m = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    arguments = (
        torch.empty_like(x),
        torch.empty_like(x),
        torch.randn(1, *x.shape),
        table_of(STEP),
        None,
        0,
        x,
        m,
    )
    torch.library.opcheck(torch.ops.fastdiff.solver_step_cpp.default, arguments)


def wrong(**changes):
    x = torch.randn(2, 3, 4, 4)
    inputs = {"table": table_of(STEP), "row": 0, "x": x, "m": torch.randn(2, 3, 4, 4)} | changes
    return solver_step(inputs.pop("table"), inputs.pop("row"), inputs.pop("x"), **inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": [1.0]}, "x must be a tensor, got list"),
        ({"x": torch.zeros(2, 3, 4, 4, dtype=torch.int32)}, "x must be float32"),
        ({"x": torch.zeros(5)}, "x must be float32"),
        ({"m": torch.zeros(2, 3, 4, 5)}, r"m must be .* got torch.float32 \(2, 3, 4, 5\)"),
        ({"m": torch.zeros(2, 3, 4, 4, dtype=torch.int64)}, "m must be float32, float16 or bfloat16"),
        ({"m": torch.zeros(2, 3, 4, 4).transpose(1, 2)}, "m must be"),
        ({"m": torch.zeros(2, 3, 4, 4, device="meta")}, "m must be"),
        ({"m": None}, "m must be given"),
        ({"table": torch.zeros(1, 3)}, "table must be"),
        ({"table": table_of(STEP, torch.float64)}, "table must be"),
        ({"row": 1}, r"row must be in \[0, 1\)"),
        ({"row": -1}, r"row must be in \[0, 1\)"),
        ({"row": torch.tensor([3])}, r"row must be in \[0, 1\)"),
        ({"row": torch.tensor(0)}, "row must be an int or an int64 tensor"),
        ({"row": 0.5}, "row must be an int or an int64 tensor"),
        ({"row": torch.tensor([0]).to_sparse()}, "row must be an int or an int64 tensor"),
        ({"table": table_of({"s": 1.0})}, r"noise \(or seeds\) must be given"),
        ({"table": table_of({"s": 1.0}), "seeds": torch.arange(3)}, "seeds must be"),
        ({"table": table_of({"d": 1.0})}, "cond must be given"),
        ({"table": table_of({"h_0": 1.0})}, "history must be given"),
        (
            {"table": table_of({"h_0": 1.0, "slot_0": 2.0}), "history": torch.zeros(2, 2, 3, 4, 4)},
            "history must have the slots",
        ),
        ({"table": table_of({"push_0": 5.0}), "history": torch.zeros(2, 2, 3, 4, 4)}, "push must be"),
        ({"history": torch.zeros(2, 2, 3, 4)}, "history must be"),
        ({"per_sample": torch.zeros(2, 5)}, "per_sample must be"),
        ({"out": torch.zeros(2, 3, 4)}, "out must be"),
    ],
)
def test_wrong_input(backend, changes, message):
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"solver_step: .*{message}"):
        wrong(**changes)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "pair", [("out", "m"), ("x0_out", "x"), ("history", "x"), ("out", "x0_out"), ("out", "shifted x")]
)
def test_overlapping_memory_is_refused(backend, pair):
    block = torch.zeros(200)
    shared, shifted = block[:96].reshape(2, 3, 4, 4), block[1:97].reshape(2, 3, 4, 4)
    changes = {name: shared for name in pair if name in ("out", "m", "x0_out", "x")}
    if "history" in pair:
        changes["history"] = shared.unsqueeze(0)
    if "shifted x" in pair:
        changes["x"] = shifted
    with use_backend(backend), pytest.raises(ValueError, match="must not share memory"):
        wrong(**changes)


def test_refusal_names_inputs_and_reasons():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    with use_backend("cpp"), pytest.raises(ValueError) as error:
        wrong(x=x, m=x.clone(), table=table_of(STEP, torch.float64))
    text = str(error.value)
    assert (
        "solver_step: no backend can run these inputs" in text and "x: (2, 3, 4, 4) torch.float64 cpu" in text
    )
    assert "`cpp`: " in text and "`torch`: not chosen, because `cpp` is forced" in text
    if torch.version.cuda is None:
        with use_backend("cuda"), pytest.raises(ValueError, match="`cuda`: this torch is built without CUDA"):
            wrong()


def test_reference_is_what_the_torch_backend_runs():
    x, m = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    with use_backend("torch"):
        assert torch.equal(solver_step(table_of(STEP), 0, x, m), reference(table_of(STEP), 0, x, m))
    assert row.WIDTH == table_of({}).shape[1]


@pytest.mark.parametrize("backend", [pytest.param("cpp", marks=needs_cpp), "torch"])
@pytest.mark.parametrize("name", ["noise_row", "stream"])
@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0**32, float("nan")])
def test_made_noise_is_named_by_whole_numbers(backend, name, value):
    """A negative float has no value as a 32-bit word: C++ took another one than torch."""
    table, x = table_of({"b": 1.0, "s": 1.0, name: value}), torch.zeros(1, 3)
    with use_backend(backend), pytest.raises(ValueError, match="solver_step: .* whole number"):
        solver_step(table, 0, x, seeds=torch.tensor([1]))
