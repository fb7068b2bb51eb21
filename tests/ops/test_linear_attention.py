"""linear_attention: every backend against float64, and what it promises beside numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings

from fastdiff.ops import linear_attention, use_backend
from fastdiff.ops.linear_attention import reference

from .attention_cases import LAYOUTS, USUAL, cases, laid_out, make, results
from .conftest import assert_as_exact_as_torch, needs_cpp
from .test_attention import MISFITS, NEAR, assert_gradient

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


def exact(q, k, v, scale):
    context = k.double().softmax(-2).transpose(-1, -2) @ v.double()
    return q.double().softmax(-1) * scale @ context


@needs_cpp
@settings(max_examples=100, deadline=None)
@given(case=cases)
@example(case=USUAL | {"queries": 300, "keys": 600, "width": 40})
@example(case=USUAL | {"queries": 1, "keys": 1})
@example(case=USUAL | {"queries": 257, "keys": 65, "width": 8, "values": "loud"})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"queries": 17, "keys": 77, "width": 150})
@example(case=USUAL | {"keys": 300, "dtype": torch.bfloat16, "layout": "channels first"})
def test_as_exact_as_torch(case):
    inputs, gradient = make(case)
    with use_backend("cpp"):
        ours = linear_attention(*inputs)
    assert ours.dtype == case["dtype"] and ours.shape == gradient.shape
    if ours.numel():
        scale = case["width"] ** -0.5
        plain = reference(q=inputs[0], k=inputs[1], v=inputs[2], scale=scale)
        assert_as_exact_as_torch(ours, plain, exact(*inputs, scale))


@needs_cpp
@settings(max_examples=25, deadline=None)
@given(case=cases)
def test_gradients_are_as_exact_as_torch(case):
    inputs, gradient = make(case)
    if gradient.numel():
        backends = ("cpp", "torch", "exact")
        ours, plain, true = (results(linear_attention, name, inputs, gradient) for name in backends)
        for one, two, three in zip(ours[1:], plain[1:], true[1:], strict=True):
            assert one.shape == two.shape and one.dtype == two.dtype
            assert_gradient(one, two, three)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_form(backend):
    """Equal keys: every query gets the mean of the values, times the scale."""
    q, v = torch.randn(2, 3, 40, 8), torch.randn(2, 3, 70, 16)
    k = torch.randn(1, 1, 1, 8).expand(2, 3, 70, 8)
    with use_backend(backend):
        found = linear_attention(q, k, v, scale=0.5)
        torch.testing.assert_close(found, 0.5 * v.mean(2, keepdim=True).expand_as(found), **NEAR)
        assert torch.equal(linear_attention(q, k, v), linear_attention(q, k, v, scale=8**-0.5))


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_depends_on_nothing_but_its_head(layout):
    q, k, v = (laid_out(torch.randn(2, 3, rows, 24), layout) for rows in (531, 300, 300))
    threads = torch.get_num_threads()
    try:
        with use_backend("cpp"):
            torch.set_num_threads(1)
            alone = linear_attention(q[1:, 2:].contiguous(), k[1:, 2:].contiguous(), v[1:, 2:].contiguous())
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert torch.equal(linear_attention(q, k, v)[1:, 2:], alone)
    finally:
        torch.set_num_threads(threads)


@needs_cpp
def test_what_is_not_a_number_stays_visible():
    q, k, v = torch.randn(2, 40, 8), torch.randn(2, 150, 8), torch.randn(2, 150, 8)
    q[0, 7, 3], k[1, 20, 0] = float("nan"), float("nan")
    with use_backend("cpp"):
        out = linear_attention(q, k, v)
    bad = torch.zeros(2, 40, dtype=torch.bool)
    bad[0, 7], bad[1] = True, True
    assert torch.equal(out.isnan().all(-1), bad) and torch.equal(out.isnan().any(-1), bad)


@needs_cpp
def test_large_keys_give_no_overflow():
    q, k, v = 300 * torch.randn(1, 50, 8), 300 * torch.randn(1, 700, 8), torch.randn(1, 700, 8)
    with use_backend("cpp"):
        found = linear_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(found.double(), exact(q, k, v, 1.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("q", "k", "v", "message"), MISFITS)
def test_wrong_inputs_are_told_in_words(backend, q, k, v, message):
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"linear_attention: {message}"):
        linear_attention(q, k, v)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_and_one_graph(layout):
    q, k, v = (laid_out(torch.randn(1, 2, rows, 8), layout) for rows in (5, 7, 7))
    out = torch.empty(1, 2, 5, 8)
    torch.library.opcheck(torch.ops.fastdiff.linear_attention_cpp.default, (out, q, k, v, 0.5))
    compiled = torch.compile(lambda *t: linear_attention(*t), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v), linear_attention(q, k, v))
