"""The forward process: every backend against float64 and against its own definition."""

import pytest
import torch
from hypothesis import given, settings

from fastdiff.ops import add_noise, philox, use_backend

from .conftest import SEEDS, needs_cpp
from .noise_cases import cases, compare

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(case=cases(40, 5))
def test_cpp_is_as_exact_as_torch(case):
    def ours(**inputs):
        with use_backend("cpp"):
            return add_noise(**inputs, return_noise=True)

    compare(ours, case)


@pytest.mark.parametrize("backend", BACKENDS)
def test_definition(backend):
    x0, alpha, sigma = torch.randn(5, 3, 6, 7), torch.rand(5), torch.rand(5)
    with use_backend(backend):
        x_t, eps = add_noise(x0, alpha, sigma, seeds=SEEDS, row=9, offset=0.5, return_noise=True)
        again = add_noise(x0, alpha, sigma, seeds=SEEDS, row=9, offset=0.5)
    white = philox.normal(SEEDS, 126, row=9, stream=philox.Stream.FORWARD).reshape(x0.shape)
    shift = philox.normal(SEEDS, 3, row=9, stream=philox.Stream.OFFSET).reshape(5, 3, 1, 1)
    assert (eps - (white + 0.5 * shift)).abs().max() < 4e-6
    expected = alpha.reshape(-1, 1, 1, 1) * x0 + sigma.reshape(-1, 1, 1, 1) * eps
    assert (x_t - expected).abs().max() < 1e-6
    assert torch.equal(x_t, again)


@needs_cpp
def test_many_channels_share_offsets_across_tiles():
    x0, seeds = torch.zeros(2, 3000, 1), torch.tensor([3, 4])
    one, nought = torch.ones(2), torch.zeros(2)
    with use_backend("cpp"):
        ours = add_noise(x0, nought, one, seeds=seeds, offset=1.0)
    with use_backend("torch"):
        plain = add_noise(x0, nought, one, seeds=seeds, offset=1.0)
    assert (ours - plain).abs().max() < 4e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_alpha_of_zero_does_not_read_the_image(backend):
    x0 = torch.full((2, 1, 3, 3), float("nan"))
    x0[1] = 1.0
    with use_backend(backend):
        x_t = add_noise(x0, torch.tensor([0.0, 1.0]), torch.ones(2), seeds=torch.arange(2))
    assert x_t.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_place(backend):
    x0, alpha, sigma, seeds = torch.randn(3, 2, 5, 5), torch.rand(3), torch.rand(3), torch.arange(3)
    with use_backend(backend):
        fresh = add_noise(x0, alpha, sigma, seeds=seeds)
        assert add_noise(x0, alpha, sigma, seeds=seeds, out=x0) is x0
    assert torch.equal(fresh, x0)


def test_gradient_reaches_the_image():
    x0 = torch.randn(2, 1, 3, 3, requires_grad=True)
    add_noise(x0, torch.tensor([0.5, 0.25]), torch.ones(2), seeds=torch.arange(2)).sum().backward()
    assert torch.allclose(x0.grad[0], torch.tensor(0.5)) and torch.allclose(x0.grad[1], torch.tensor(0.25))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_as_one_graph(backend):
    x0, alpha, sigma, seeds = torch.randn(2, 3, 8, 8), torch.rand(2), torch.rand(2), torch.arange(2)
    step = torch.compile(
        lambda x: add_noise(x, alpha, sigma, seeds=seeds), fullgraph=True, backend="aot_eager"
    )
    with use_backend(backend), torch.no_grad():
        assert (step(x0) - add_noise(x0, alpha, sigma, seeds=seeds)).abs().max() < 1e-5


@needs_cpp
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x0 = torch.randn(2, 3, 4, 5).contiguous(memory_format=layout)
    dense = torch.empty(x0.shape)
    arguments = (
        dense,
        torch.empty(x0.shape),
        x0,
        torch.rand(2),
        torch.rand(2),
        torch.arange(2),
        None,
        3,
        None,
        0.1,
    )
    torch.library.opcheck(torch.ops.fastdiff.add_noise_cpp.default, arguments)
    torch.library.opcheck(torch.ops.fastdiff.normal_cpp.default, (dense, torch.arange(2), None, 3, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x0": [1.0]}, "x0 must be a tensor"),
        ({"x0": torch.zeros(2, 3, dtype=torch.uint8)}, "x0 must be float32"),
        ({"x0": torch.zeros(2)}, "x0 must be float32"),
        ({"alpha": torch.zeros(3)}, "alpha must be"),
        ({"sigma": torch.zeros(2, dtype=torch.float64)}, "sigma must be"),
        ({"alpha": 0.5}, "alpha must be a tensor"),
        ({"seeds": None}, "seeds must be given"),
        ({"seeds": torch.arange(2).int()}, "seeds must be"),
        ({"row": -1}, "row must be in"),
        ({"row": torch.tensor([1.0, 2.0])}, "row must be"),
        ({"noise": torch.zeros(2, 3, 4)}, "noise must be"),
        ({"out": torch.zeros(2, 3, 4, 4).half()}, "out must be"),
    ],
)
def test_wrong_input(backend, changes, message):
    inputs = {
        "x0": torch.zeros(2, 3, 4, 4),
        "alpha": torch.ones(2),
        "sigma": torch.ones(2),
        "seeds": torch.arange(2),
    }
    inputs |= changes
    with use_backend(backend), pytest.raises((TypeError, ValueError), match=f"add_noise: .*{message}"):
        add_noise(inputs.pop("x0"), inputs.pop("alpha"), inputs.pop("sigma"), **inputs)
