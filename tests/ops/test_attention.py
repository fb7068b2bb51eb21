"""attention: every backend against float64, and what it promises beside numbers."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import example, given, settings

from fastdiff.ops import attention, attention_choice, attention_table, extension, use_backend
from fastdiff.ops.attention import reference

from .attention_cases import LAYOUTS, USUAL, cases, laid_out, make, results
from .conftest import needs_cpp

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]
NEAR = {"atol": 1e-5, "rtol": 1e-5}
MISFITS = [
    (torch.zeros(2, 5, 8), torch.zeros(2, 7, 9), torch.zeros(2, 7, 8), "k must be .*as wide as q"),
    (torch.zeros(2, 5, 8), torch.zeros(2, 0, 8), torch.zeros(2, 0, 8), "k must be .*at least 1"),
    (torch.zeros(2, 5, 8), torch.zeros(2, 7, 8), torch.zeros(2, 6, 8), "v must have the 7 rows of k"),
    (torch.zeros(2, 5, 8), torch.zeros(3, 7, 8), torch.zeros(3, 7, 8), "k must be .*leading dimensions of q"),
    (torch.zeros(2, 5, 8), torch.zeros(2, 7, 8), torch.zeros(2, 7, 8).half(), "v must be torch.float32"),
    (torch.zeros(5), torch.zeros(7, 8), torch.zeros(7, 8), "q must be .*rows, width"),
    (torch.zeros(5, 8, dtype=torch.int64), torch.zeros(7, 8), torch.zeros(7, 8), "q must be float32"),
    (None, torch.zeros(7, 8), torch.zeros(7, 8), "q must be a tensor, got NoneType"),
]


def assert_gradient(ours, plain, exact):
    """error <= 3 x torch's own + 2 ulp of the largest value; of few numbers 64 ulp, where torch may be lucky."""
    floor = (2 if exact.numel() >= 64 else 64) * torch.finfo(plain.dtype).eps
    allowed = 3 * (plain.double() - exact).abs().max() + floor * exact.abs().max()
    assert (ours.double() - exact).abs().max() <= allowed


def exact_attention(q, k, v, scale):
    return torch.softmax(q.double() @ k.double().transpose(-1, -2) * scale, -1) @ v.double()


@needs_cpp
@settings(max_examples=150, deadline=None)
@given(case=cases)
@example(case=USUAL | {"queries": 65, "keys": 600, "width": 40})
@example(case=USUAL | {"queries": 1, "keys": 1})
@example(case=USUAL | {"queries": 3, "keys": 513, "width": 8, "values": "loud"})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"queries": 33, "keys": 77, "width": 1024})
@example(case=USUAL | {"queries": 64, "keys": 300, "dtype": torch.bfloat16, "layout": "channels first"})
def test_as_exact_as_torch(case):
    """error <= 3 x torch's own + 2 ulp of the largest value; errors of a row belong together, so few rows are luck."""
    inputs, gradient = make(case)
    with use_backend("cpp"):
        ours = attention(*inputs)
    assert ours.dtype == case["dtype"] and ours.shape == gradient.shape
    if ours.numel():
        scale = case["width"] ** -0.5
        plain, exact = reference(**dict(zip("qkv", inputs)), scale=scale), exact_attention(*inputs, scale)
        own, few = (plain.double() - exact).abs().max(), exact.numel() < 128 * case["width"]
        luck = rounding_of_scores(*inputs, scale) if few else 3 * own
        floor = (16 if few else 2) * torch.finfo(plain.dtype).eps * exact.abs().max()
        assert (ours.double() - exact).abs().max() <= luck + floor


def rounding_of_scores(q, k, v, scale):
    """What rounding them may do to the result: of few rows torch's may happen to be exact."""
    q, k, wide = q.double().abs(), k.double().abs(), v.double()
    return (
        torch.finfo(torch.float32).eps * scale * (q @ k.transpose(-1, -2)).max() * (wide.max() - wide.min())
    )


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(case=cases)
@example(case=USUAL | {"queries": 65, "keys": 130})
def test_gradients_are_as_exact_as_torch(case):
    inputs, gradient = make(case)
    if not gradient.numel():
        return
    ours, plain, exact = (
        results(attention, backend, inputs, gradient) for backend in ("cpp", "torch", "exact")
    )
    for one, two, three in zip(ours[1:], plain[1:], exact[1:], strict=True):
        assert one.shape == two.shape and one.dtype == two.dtype
        assert_gradient(one, two, three)


@pytest.mark.parametrize("backend", BACKENDS)
def test_closed_forms(backend):
    """Equal keys: the mean of the values. One key far ahead: its value. One key: its value, exactly."""
    v = torch.randn(2, 3, 70, 16)
    q, k = torch.randn(2, 3, 40, 8), torch.randn(1, 1, 1, 8).expand(2, 3, 70, 8)
    with use_backend(backend):
        torch.testing.assert_close(attention(q, k, v), v.mean(2, keepdim=True).expand(2, 3, 40, 16))
        ahead = torch.zeros(2, 3, 70, 8)
        ahead[:, :, 69] = 1.0
        found = attention(torch.full_like(q, 100.0), ahead, v)
        torch.testing.assert_close(found, v[:, :, 69:].expand_as(found))
        assert torch.equal(attention(q, k[:, :, :1], v[:, :, :1]), v[:, :, :1].expand(2, 3, 40, 16))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_scale_is_the_one_given(backend):
    q, k, v = torch.randn(3, 5, 8), torch.randn(3, 9, 8), torch.randn(3, 9, 8)
    with use_backend(backend):
        for scale in (0.0, -1.0, 3.0):
            found = attention(q, k, v, scale=scale).double()
            torch.testing.assert_close(found, exact_attention(q, k, v, scale), **NEAR)
        assert torch.equal(attention(q, k, v), attention(q, k, v, scale=1 / math.sqrt(8)))


@needs_cpp
@pytest.mark.parametrize("dims", [2, 3, 5, 8])
def test_any_number_of_leading_dimensions(dims):
    q, k, v = (torch.randn(*[2] * (dims - 2), rows, 9) for rows in (4, 5, 5))
    with use_backend("cpp"):
        torch.testing.assert_close(attention(q, k, v).double(), exact_attention(q, k, v, 1 / 3), **NEAR)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_depends_on_nothing_but_its_head(layout):
    q, k, v = (laid_out(torch.randn(2, 3, rows, 24), layout) for rows in (131, 300, 300))
    threads = torch.get_num_threads()
    try:
        with use_backend("cpp"):
            torch.set_num_threads(1)
            alone = attention(q[1:, 2:].contiguous(), k[1:, 2:].contiguous(), v[1:, 2:].contiguous())
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert torch.equal(attention(q, k, v)[1:, 2:], alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("strides", [(0, 1, 2, 1), (1, 1, 0, 1), (40, 1, 40, 1), (0, 0, 0, 1)])
def test_queries_that_share_memory(strides, dtype):
    """Torch's own attention, which runs where there are more than 64 keys."""
    q = torch.randn(1000).to(dtype).as_strided((1, 2, 17, 40), strides)
    k, v = torch.randn(1, 2, 77, 40).to(dtype), torch.randn(1, 2, 77, 40).to(dtype)
    with use_backend("torch"):
        found = attention(q, k, v).double()
    near = 1e-2 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(found, exact_attention(q, k, v, 40**-0.5), atol=near, rtol=near)


@needs_cpp
def test_heads_stay_beside_each_other():
    q = torch.randn(2, 10, 3, 8).transpose(1, 2)
    with use_backend("cpp"):
        assert attention(q, q, q).transpose(1, 2).is_contiguous()
        assert attention(q.contiguous(), q, q).is_contiguous()


@needs_cpp
def test_what_is_not_a_number_stays_visible():
    q, k, v = torch.randn(2, 40, 8), torch.randn(2, 50, 8), torch.randn(2, 50, 8)
    q[0, 7, 3], k[1, 20, 0] = float("nan"), float("nan")
    with use_backend("cpp"):
        out = attention(q, k, v)
    bad = torch.zeros(2, 40, dtype=torch.bool)
    bad[0, 7], bad[1] = True, True
    assert torch.equal(out.isnan().all(-1), bad) and torch.equal(out.isnan().any(-1), bad)


@needs_cpp
def test_very_different_scores_give_no_overflow():
    q, k, v = 1e3 * torch.randn(1, 50, 8), 1e3 * torch.randn(1, 700, 8), torch.randn(1, 700, 8)
    with use_backend("cpp"):
        out = attention(q, k, v)
    assert out.isfinite().all()
    torch.testing.assert_close(out.double(), exact_attention(q, k, v, 8**-0.5), atol=0.3, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("q", "k", "v", "message"), MISFITS)
def test_wrong_inputs_are_told_in_words(backend, q, k, v, message):
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"attention: {message}"):
        attention(q, k, v)


def test_a_wrong_scale_is_told():
    q = torch.zeros(2, 4, 8)
    with pytest.raises(TypeError, match="attention: scale must be a number, got str"):
        attention(q, q, q, scale="half")


def test_gradients_of_the_formula():
    q, k, v = (torch.randn(1, rows, 2, dtype=torch.float64, requires_grad=True) for rows in (2, 3, 3))
    assert torch.autograd.gradcheck(attention, (q, k, v))
    assert torch.autograd.gradgradcheck(attention, (q, k, v))


@needs_cpp
def test_second_gradients_are_those_of_the_formula():
    def twice(backend):
        inputs = [torch.arange(30.0).sin().reshape(1, 6, 5).requires_grad_() for _ in range(3)]
        with use_backend(backend):
            (first,) = torch.autograd.grad(attention(*inputs).square().sum(), inputs[0], create_graph=True)
        return torch.autograd.grad(first.square().sum(), inputs)

    for one, two in zip(twice("cpp"), twice("torch"), strict=True):
        torch.testing.assert_close(one, two)


@needs_cpp
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_and_one_graph(layout):
    q, k, v = (laid_out(torch.randn(1, 2, rows, 8), layout) for rows in (5, 7, 7))
    out, sums = torch.empty(1, 2, 5, 8), torch.empty(1, 2, 5)
    torch.library.opcheck(torch.ops.fastdiff.attention_cpp.default, (out, sums, q, k, v, 0.5))
    compiled = torch.compile(lambda *t: attention(*t), fullgraph=True, backend="aot_eager")
    with use_backend("cpp"):
        torch.testing.assert_close(compiled(q, k, v), attention(q, k, v))
    torch.testing.assert_close(compiled(q, k, v), attention(q, k, v))


@needs_cpp
def test_log_sums():
    q, k = torch.randn(2, 3, 37, 16), torch.randn(2, 3, 280, 16)
    out, sums = torch.empty(2, 3, 37, 16), torch.empty(2, 3, 37)
    torch.ops.fastdiff.attention_cpp(out, sums, q, k, k, 0.25)
    torch.testing.assert_close(sums, torch.logsumexp(q @ k.transpose(-1, -2) * 0.25, -1))


def test_the_table_chooses(monkeypatch):
    grid = {(2, 16, 16, 16): 1.5, (2, 16, 64, 16): 1.5, (2, 16, 16, 64): 1.5, (2, 16, 64, 64): 1.0}
    monkeypatch.setattr(attention_table, "RATIOS", grid)
    assert attention_choice.wins(2, 16, 16, 16) and attention_choice.wins(2, 16, 40, 16)
    assert not attention_choice.wins(2, 16, 64, 64)  # a draw
    assert not attention_choice.wins(2, 16, 20, 20)  # a corner of its cell is a draw
    assert not attention_choice.wins(2, 15, 16, 16) and not attention_choice.wins(
        1, 16, 16, 16
    )  # beyond the grid
    assert not attention_choice.wins(2, 32, 16, 16)  # never measured


@needs_cpp
def test_what_was_not_measured_runs_on_torch():
    q = torch.randn(1, 2, 3, 5)
    reasons = attention_choice.reasons(q, q, q, gradient=False)
    here = extension.instruction_set()
    expected = "nobody has measured" if here == attention_table.INSTRUCTION_SET else "was measured on"
    assert expected in reasons[0]
    assert "a gradient is wanted" in attention_choice.reasons(q, q, q, gradient=True)[0]
    assert "float32" in attention_choice.reasons(q.half(), q.half(), q.half(), gradient=False)[0]


@needs_cpp
@pytest.mark.slow
def test_random_calls_end_in_a_right_number_or_an_error():
    draw = random.Random(0)
    for _ in range(10_000):
        dims = [draw.randint(0, 3) for _ in range(draw.randint(0, 3))]
        rows, keys, width = draw.randint(0, 40), draw.randint(0, 40), draw.randint(0, 40)
        dtype = draw.choice([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32])
        tensors = [torch.randn(*dims, n, width).to(dtype) for n in (rows, keys, keys)]
        if draw.random() < 0.5:
            broken = draw.randrange(3)
            tensors[broken] = draw.choice(
                [tensors[broken].mT, tensors[broken][..., ::2], tensors[broken][:1]]
            )
        try:
            with use_backend("cpp"):
                out = attention(*tensors)
        except (TypeError, ValueError):
            continue
        if out.numel():
            exact = exact_attention(*tensors, tensors[0].shape[-1] ** -0.5)
            torch.testing.assert_close(out.double(), exact, atol=2e-2, rtol=2e-2)
