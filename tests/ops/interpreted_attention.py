"""Run by test_triton_attention.py in a process of its own, where the Triton kernels run in triton's interpreter."""

import pytest
import torch
from fastdiff.kernels import attention as kernels

from fastdiff.ops import attention, device, linear_attention, use_backend

from .attention_cases import USUAL, laid_out, make, results
from .conftest import assert_as_exact_as_torch
from .test_attention import assert_gradient, exact_attention
from .test_linear_attention import exact as exact_linear

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
CASES = [
    {"queries": 70, "keys": 77, "width": 40},
    {"queries": 33, "keys": 70, "width": 64, "layout": "channels first"},
    {"queries": 1, "keys": 1, "width": 8, "layout": "sliced"},
    {"queries": 70, "keys": 5, "width": 16, "values": "loud"},
    {"queries": 10, "keys": 18, "width": 256, "heads": 1},
    {"queries": 5, "keys": 34, "width": 300, "heads": 1, "values": "equal scores"},
    {"queries": 10, "keys": 34, "width": 128, "values": "far from zero"},
    {"batch": 0},
]


def test_the_interpreter_is_on():
    assert device.INTERPRETED and not device.WITHOUT_TRITON


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_attention_and_gradients_are_as_exact_as_torch(case, dtype):
    inputs, gradient = make(USUAL | {"heads": 2, "dtype": dtype} | case)
    ours, plain, exact = (results(attention, name, inputs, gradient) for name in ("triton", "torch", "exact"))
    assert ours[0].dtype == dtype and ours[0].shape == gradient.shape
    if not gradient.numel():
        return
    assert_as_exact_as_torch(ours[0], plain[0], exact[0])
    for one, two, three in zip(ours[1:], plain[1:], exact[1:], strict=True):
        assert one.dtype == dtype and one.shape == two.shape and one.isfinite().all()
        # With other values the gradient is what is left of a cancellation, or of scores in the thousands.
        if case.get("values", "usual") == "usual" and case["keys"] > 1:
            assert_gradient(one, two, three)


@pytest.mark.parametrize("width", [40, 64])
def test_gradient_of_v_of_loud_scores_is_as_exact_as_torch_with_tiles_of_one_size(width, monkeypatch):
    """With tiles of two sizes numpy, which multiplies here, sums in two orders, and dv errs ten times as much."""
    monkeypatch.setattr(kernels, "backward", kernels.forward)
    inputs, gradient = make(USUAL | {"queries": 70, "keys": 70, "width": width, "values": "loud"})
    ours, plain, exact = (results(attention, name, inputs, gradient) for name in ("triton", "torch", "exact"))
    for i in (0, 3):
        assert_gradient(ours[i], plain[i], exact[i])


@pytest.mark.parametrize("case", [c for c in CASES if c.get("width", 8) <= 64], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_linear_attention_is_as_exact_as_torch(case, dtype):
    case = USUAL | {"dtype": dtype} | case
    inputs, gradient = make(case)
    with use_backend("triton"):
        ours = linear_attention(*inputs)
    with use_backend("torch"):
        plain = linear_attention(*inputs)
    if ours.numel():
        assert_as_exact_as_torch(ours, plain, exact_linear(*inputs, case["width"] ** -0.5))


def test_parts_of_linear_attention_are_joined():
    q, k, v = torch.randn(1, 1, 10, 16), 5 * torch.randn(1, 1, 2500, 16), torch.randn(1, 1, 2500, 16)
    with use_backend("triton"):
        found = linear_attention(q, k, v, scale=1.0)
    torch.testing.assert_close(found.double(), exact_linear(q, k, v, 1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3, 5])
def test_any_number_of_leading_dimensions(dims):
    q, k, v = (torch.randn(*[2] * (dims - 2), rows, 9) for rows in (4, 5, 5))
    with use_backend("triton"):
        found, linear = attention(q, k, v), linear_attention(q, k, v)
    torch.testing.assert_close(found.double(), exact_attention(q, k, v, 1 / 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear.double(), exact_linear(q, k, v, 1 / 3), atol=1e-5, rtol=1e-5)


def test_gradient_is_the_same_every_time():
    inputs, gradient = make(USUAL | {"queries": 70, "keys": 70, "width": 16})
    one, two = (results(attention, "triton", inputs, gradient) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_refusals_are_words():
    q = torch.zeros(2, 3, 200)
    with use_backend("triton"), pytest.raises(ValueError, match="q is 200 wide, it takes at most 64"):
        linear_attention(q, q, q)
    with use_backend("triton"), pytest.raises(ValueError, match="v is 7 wide, it takes v as wide as q, 200"):
        attention(q, q, q[..., :7])
    many = torch.zeros(65536, 1, 1)
    with (
        use_backend("triton"),
        pytest.raises(ValueError, match="q has 65536 heads in all, it takes at most 65535"),
    ):
        attention(many, many, many)
    with use_backend("triton"), pytest.raises(ValueError, match="it computes in float32"):
        attention(q.double(), q.double(), q.double())


@pytest.mark.parametrize("op", [attention, linear_attention])
def test_opcheck_and_one_graph(op):
    q, k, v = (laid_out(torch.randn(1, 2, rows, 8), "heads beside each other") for rows in (5, 7, 7))
    out, sums, registered = torch.empty(1, 2, 5, 8), torch.empty(1, 2, 2, 5), torch.ops.fastdiff
    compiled = torch.compile(lambda *t: op(*t), fullgraph=True, backend="aot_eager")
    with use_backend("triton"):
        torch.testing.assert_close(compiled(q, k, v), op(q, k, v))
    if op is linear_attention:
        torch.library.opcheck(registered.linear_attention_triton.default, (out, q, k, v, 0.5))
        return
    torch.library.opcheck(registered.attention_triton.default, (out, sums, q, k, v, 0.5))
    found = [torch.empty(1, 2, rows, 8) for rows in (5, 7, 7)]
    torch.library.opcheck(
        registered.attention_backward_triton.default, (*found, out, out, sums, q, k, v, 0.5)
    )
