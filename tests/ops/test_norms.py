"""group_norm_silu and rms_norm_silu: every backend against float64, and what they promise beside numbers."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings

from fastdiff.ops import group_norm_silu, rms_norm_silu, use_backend

from .conftest import needs_cpp
from .norm_cases import USUAL, cases, compare, rms

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@needs_cpp
@settings(max_examples=150, deadline=None)
@given(case=cases)
@example(case=USUAL | {"values": "far from zero", "sizes": [7, 9]})
@example(case=USUAL | {"values": "far from zero", "layout": "contiguous"})
@example(case=USUAL | {"values": "large", "dtype": torch.float16, "width": 10})
@example(case=USUAL | {"values": "equal"})
@example(case=USUAL | {"sizes": [1, 1]})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"batch": 1, "width": 1, "sizes": []})
@example(case=USUAL | {"batch": 3, "sizes": [40, 40]})
def test_group_norm_is_as_exact_as_torch(case):
    together = case["width"] * math.prod(case["sizes"])
    op = partial(group_norm_silu, groups=case["groups"], activate=case["activate"])
    compare("cpp", op, case, together)


@needs_cpp
@settings(max_examples=150, deadline=None)
@given(case=cases)
@example(case=USUAL | {"values": "far from zero", "sizes": [7, 9]})
@example(case=USUAL | {"values": "large", "dtype": torch.float16, "width": 10})
@example(case=USUAL | {"values": "zero"})
@example(case=USUAL | {"sizes": [1, 1]})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"batch": 3, "sizes": [40, 40], "layout": "contiguous"})
def test_rms_norm_is_as_exact_as_torch(case):
    compare("cpp", partial(rms, activate=case["activate"]), case, case["groups"] * case["width"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype_and_strides_stay(backend, layout, dtype):
    x = torch.randn(2, 12, 5, 7).to(dtype).contiguous(memory_format=layout).requires_grad_()
    weight, scale = torch.randn(12), torch.randn(2, 12)
    with use_backend(backend):
        for out in (group_norm_silu(x, 4, weight, scale=scale), rms_norm_silu(x, weight, shift=scale)):
            assert out.dtype == dtype and out.stride() == x.stride()
            (gradient,) = torch.autograd.grad(out.sum(), x)
            assert gradient.dtype == dtype and (backend == "torch" or gradient.stride() == x.stride())


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_depends_neither_on_batch_nor_on_threads(layout):
    x = torch.randn(5, 40, 31, 33).contiguous(memory_format=layout)
    factors = torch.randn(5, 40), torch.randn(5, 40)
    threads = torch.get_num_threads()
    try:
        for op in (partial(group_norm_silu, groups=4), rms_norm_silu):
            torch.set_num_threads(1)
            alone = [
                op(x[i : i + 1], scale=factors[0][i : i + 1], shift=factors[1][i : i + 1]) for i in range(5)
            ]
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert torch.equal(op(x, scale=factors[0], shift=factors[1]), torch.cat(alone))
    finally:
        torch.set_num_threads(threads)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_the_same_every_time(layout):
    x = torch.randn(3, 40, 31, 33).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(40, requires_grad=True)
    for op in (partial(group_norm_silu, groups=4), rms_norm_silu):
        first, second = (
            torch.autograd.grad(op(x, weight=weight).square().sum(), (x, weight)) for _ in range(2)
        )
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_cpp
def test_second_gradient():
    x, w = torch.randn(2, 6, 3, 3, requires_grad=True), torch.randn(6, requires_grad=True)
    wide = [t.detach().double().requires_grad_() for t in (x, w)]
    for op in (partial(group_norm_silu, groups=3), rms_norm_silu):
        found = []
        for a, b in ((x, w), wide):
            (first,) = torch.autograd.grad(op(a, weight=b).square().sum(), a, create_graph=True)
            found.append(torch.autograd.grad(first.square().sum(), (a, b)))
        for ours, exact in zip(*found, strict=True):
            torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", [partial(group_norm_silu, groups=4), rms_norm_silu])
def test_compiles_as_one_graph(backend, layout, op):
    x = torch.randn(2, 8, 4, 5).contiguous(memory_format=layout).requires_grad_()
    w, scale, shift = torch.randn(8, requires_grad=True), torch.randn(2, 8), torch.randn(2, 8)

    def step(x, w):
        return op(x * 2, weight=w, scale=scale, shift=shift) + 1

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with use_backend(backend):
        found, expected = compiled(x, w), step(x, w)
        torch.testing.assert_close(found, expected)
        assert found.stride() == expected.stride()
        for ours, theirs in zip(
            torch.autograd.grad(found.square().sum(), (x, w)),
            torch.autograd.grad(expected.square().sum(), (x, w)),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x, w), expected)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("given", [True, False])
def test_opcheck(layout, given):
    x = torch.randn(2, 8, 4, 5).contiguous(memory_format=layout)
    w, b, scale, shift = torch.randn(8), torch.randn(8), torch.randn(2, 8), torch.randn(2, 8)
    if not given:
        w = b = scale = shift = None
    ops, out, statistics = torch.ops.fastdiff, torch.empty_like(x), torch.rand(2, 4, 3)
    gradient = torch.randn(x.shape).contiguous(memory_format=layout)
    factors, sums = (w, b, scale, shift), torch.empty(2, 2, 8)
    torch.library.opcheck(ops.group_norm_silu_cpp.default, (out, statistics, x, *factors, 4, 1e-5, True))
    torch.library.opcheck(ops.group_norm_silu_cpp.default, (out, None, x, *factors, 4, 1e-5, True))
    read = (gradient, statistics, x, *factors, 4, True)
    backward = (out, sums, None, None, *read) if given else (out, None, torch.empty(8), torch.empty(8), *read)
    torch.library.opcheck(ops.group_norm_silu_backward_cpp.default, backward)
    torch.library.opcheck(ops.rms_norm_silu_cpp.default, (out, x, w, scale, shift, 1e-12, True))
    backward = (out, torch.empty(2, 1, 2, 8), gradient, x, w, scale, shift, 1e-12, True)
    torch.library.opcheck(ops.rms_norm_silu_backward_cpp.default, backward)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_ordinary_call_is_that_of_the_forced_backend(layout):
    x = torch.randn(3, 40, 5, 7).contiguous(memory_format=layout)
    weight, rows = torch.randn(40), torch.randn(3, 80).chunk(2, dim=1)
    for norm in (partial(group_norm_silu, groups=4), rms_norm_silu):
        for scale, shift in (rows, (None, None)):
            leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
            found = norm(leaves[0], weight=leaves[1], scale=scale, shift=shift)
            with use_backend("cpp"):
                expected = norm(leaves[0], weight=leaves[1], scale=scale, shift=shift)
                assert torch.equal(norm(x, weight=weight, scale=scale, shift=shift), expected)
            assert torch.equal(found, expected)
            for one, other in zip(
                *(torch.autograd.grad(y.sum(), leaves) for y in (found, expected)), strict=True
            ):
                assert torch.equal(one, other)


@needs_cpp
def test_silu_of_extreme_numbers():
    """By way of the shift of an RMS norm, whose map is 0."""
    u = torch.tensor([float("inf"), 3.4e38, 1e6, 88.0, 1e-40, 0.0, -1e-10, -80.0, -1e4, -3e38]).repeat(4)
    x = torch.zeros(1, len(u), 2, 2)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = rms_norm_silu(x.contiguous(memory_format=layout), shift=u[None])[0, :, 0, 0]
        expected = torch.nn.functional.silu(u.double()).float()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-34)


WRONG = [
    ({"x": [1.0]}, "x must be a tensor"),
    ({"x": torch.zeros(2, 8, 3, dtype=torch.int64)}, "x must be float32"),
    ({"x": torch.zeros(8)}, "x must be float32"),
    ({"x": torch.zeros(2, 0, 3)}, "x must be float32"),
    ({"weight": torch.zeros(7)}, "weight must be"),
    ({"weight": torch.zeros(8, dtype=torch.float64)}, "weight must be"),
    ({"weight": 1.0}, "weight must be a tensor"),
    ({"scale": torch.zeros(8)}, "scale must be"),
    ({"scale": torch.zeros(1, 8)}, "scale must be"),
    ({"shift": torch.zeros(2, 8, dtype=torch.int32)}, "shift must be"),
    ({"shift": torch.zeros(2, 8, device="meta")}, "shift must be"),
    ({"eps": -1.0}, "eps must be"),
    ({"eps": float("nan")}, "eps must be"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("changes", "message"), WRONG)
@pytest.mark.parametrize("name", ["group_norm_silu", "rms_norm_silu"])
def test_wrong_input(backend, changes, message, name):
    op = partial(group_norm_silu, groups=4) if name == "group_norm_silu" else rms_norm_silu
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"{name}: {message}"):
        op(**({"x": torch.zeros(2, 8, 3, 3)} | changes))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [0, -1, 3, 16, 2.0])
def test_wrong_groups(backend, groups):
    with use_backend(backend), pytest.raises(ValueError, match="groups must divide the 8 channels, got"):
        group_norm_silu(torch.zeros(2, 8, 3, 3), groups)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1e19, 1e30, 3e38])
def test_squares_beyond_float32_are_no_number(layout, size):
    """Not the bias, which is all that 1 / infinity would leave; other groups and pixels are as without them."""
    x = torch.randn(2, 8, 50, 50).contiguous(memory_format=layout)
    sign, bias = torch.where(x > 0, size, -size), torch.ones(8)
    bad = torch.zeros_like(x, dtype=torch.bool)
    bad[1, 2:4] = True
    assert_no_number(partial(group_norm_silu, groups=4, bias=bias), torch.where(bad, sign, x), x, bad)
    bad[1, :, :, 1:], bad[1, :, :, 0] = False, True
    assert_no_number(partial(rms_norm_silu, shift=torch.ones(2, 8)), torch.where(bad, sign, x), x, bad)


def assert_no_number(op, loud, x, bad):
    """op and its gradient are NaN where `bad`, elsewhere those of x."""
    leaves = [loud.requires_grad_(), x.clone().requires_grad_()]
    results = [op(leaf) for leaf in leaves]
    gradients = [torch.autograd.grad(y.sum(), leaf)[0] for y, leaf in zip(results, leaves, strict=True)]
    for found, usual in (results, gradients):
        assert torch.equal(found.isnan(), bad) and torch.equal(found[~bad], usual[~bad])


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_stays_in_its_group(backend):
    x = torch.randn(2, 8, 3, 3)
    x[1, 2, 0, 0] = float("nan")
    with use_backend(backend):
        grouped, single = group_norm_silu(x, 4), rms_norm_silu(x)
    bad = torch.zeros(2, 4, dtype=torch.bool)
    bad[1, 1] = True
    assert torch.equal(grouped.isnan().reshape(2, 4, -1).all(2), bad)
    assert torch.equal(grouped.isnan().reshape(2, 4, -1).any(2), bad)
    assert single[1, :, 0, 0].isnan().all() and single.isnan().sum() == 8
