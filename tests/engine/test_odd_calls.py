"""Calls that are legal and rare: results that are copies, one sample without a batch, rows that are not dense."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from fastdiff.engine import capture, explain, normalise, program
from fastdiff.engine.settings import Settings

_MAPS = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


class _Of(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.call = call

    def forward(self, *inputs):
        return self.call(self, *inputs)


def _both(call, *inputs, backend="fastdiff"):
    net = _Of(call).eval()
    with torch.no_grad():
        return torch.compile(net, backend=backend)(*inputs), net(*inputs)


def _live(module, inputs, **_):
    """The plan of a GPU, on the CPU."""
    return program.Program(module, Settings(live=True, inductor=False))


COPIES = {
    "clone": lambda net, x: (net.first(x), x.clone()),
    "by one": lambda net, x: (net.first(x), x / 1.0),
    "view and back": lambda net, x: (net.first(x), x.transpose(2, 3).contiguous()),
    "result": lambda net, x: net.first(x).permute(0, 2, 3, 1).contiguous(),
    "view of a copy": lambda net, x: (net.first(x), x.clone().reshape(2, -1)),
    "result twice": lambda net, x: (y := net.first(x), y.clone()),
}


@pytest.mark.parametrize("backend", ["fastdiff", _live], ids=["cpu", "live"])
@pytest.mark.parametrize("call", COPIES.values(), ids=COPIES)
def test_copies_are_memory_of_their_own_in_the_strides_of_eager(call, backend):
    x = _MAPS.clone()
    got, want = (r if isinstance(r, tuple) else (r,) for r in _both(call, x, backend=backend))
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert got[-1].stride() == want[-1].stride()
    assert len({t.untyped_storage().data_ptr() for t in (x, *got)}) == len(got) + 1


@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
def test_one_sample_without_a_batch(size):
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.SiLU()).eval()
    x = torch.randn(8, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, backend="fastdiff")(x), net(x), rtol=1e-4, atol=1e-5)


def test_embedding_whose_rows_are_not_dense():
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))[:, ::2]
    got, want = _both(lambda net, x, e: net.first(x) + e[:, :, None, None], _MAPS, rows)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    got, want = _both(lambda net, x, e: net.first(x) + e, _MAPS, rows[:1, :, None, None])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_a_small_factor_after_a_norm_keeps_its_digits(size):
    gate = size * torch.rand(2, 16, 1, 1, generator=torch.Generator().manual_seed(3))
    norm = nn.GroupNorm(4, 16).eval()
    got, want = _both(lambda net, x, g: norm(x) * g, _MAPS, gate)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize(
    "scaled",
    [lambda v, s: v * (1 + s)[:, :, None, None], lambda v, s: v * (s + 1).reshape(2, 16, 1, 1)],
)
def test_one_plus_a_scale_is_fused_behind_views(scaled):
    norm, scale = nn.GroupNorm(4, 16).eval(), torch.randn(2, 16, generator=torch.Generator().manual_seed(4))
    net = _Of(lambda net, x, s: torch.nn.functional.silu(scaled(norm(x), s))).eval()
    with torch.no_grad():
        got, want = torch.compile(net, backend="fastdiff")(_MAPS, scale), net(_MAPS, scale)
        told = explain(net, _MAPS, scale)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert [step.name for step in told.steps] == ["norm_silu", "fresh"]


def test_numbers_that_change_at_every_call_do_not_fill_the_memory(monkeypatch, caplog):
    monkeypatch.setattr(program, "MOST_PLANS", 3)
    net = nn.Conv2d(16, 16, 3, padding=1).eval()
    compiled = torch.compile(lambda x, scale: net(x) * scale, backend="fastdiff", dynamic=True)
    before = {id(p) for p in program._PROGRAMS}
    with torch.no_grad():
        for k in range(6):
            got = compiled(_MAPS[:, :, : k + 3], 0.5)
            torch.testing.assert_close(got, net(_MAPS[:, :, : k + 3]) * 0.5, rtol=1e-4, atol=1e-5)
    made = [p for p in program._PROGRAMS if id(p) not in before]
    assert made and all(len(p.plans) <= 3 for p in made)
    assert "3 sets of input sizes" in caplog.text


@pytest.mark.parametrize(
    "x", [torch.arange(-3, 4), torch.tensor([True, False]), torch.arange(4).double(), torch.arange(4).half()]
)
def test_a_number_times_its_sigmoid_in_every_type(x):
    got, want = _both(lambda net, x: (x * torch.sigmoid(x), x.sigmoid() * x), x)
    torch.testing.assert_close(got, want)


def test_threads_that_compile_at_once(caplog):
    nets = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.SiLU()) for _ in range(2)]
    compiled = [torch.compile(net.eval(), backend="fastdiff") for net in nets]
    with torch.no_grad():
        wanted = [net(_MAPS) for net in nets]

    def call(k):
        with torch.no_grad():
            return [compiled[(k + i) % 2](_MAPS) for i in range(4)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(4)))
    for k, results in enumerate(found):
        for i, result in enumerate(results):
            torch.testing.assert_close(result, wanted[(k + i) % 2], rtol=1e-4, atol=1e-5)
    assert "planning it failed" not in caplog.text


def test_a_compiled_function_runs_while_another_thread_traces():
    net, found = nn.Conv2d(16, 16, 3, padding=1).eval(), []
    compiled = torch.compile(net, backend="fastdiff")

    def call():
        with torch.no_grad():
            return compiled(_MAPS)

    def traced(x):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(call).result(60))
        return x + 1

    call()
    with capture.alone():
        make_fx(traced)(torch.ones(2))
    with torch.no_grad():
        torch.testing.assert_close(found[0], net(_MAPS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("numbers", [(0.0, -0.0), (1, 1.0, True), (float("nan"), 2.0)])
def test_numbers_that_python_takes_for_equal_are_told_apart(numbers):
    keys = {normalise.exactly(number) for number in numbers}
    assert len(keys) == len(numbers)
    assert keys == {normalise.exactly(type(number)(str(number))) for number in numbers}


def test_a_plan_for_zero_is_not_that_for_minus_zero():
    net = _Of(lambda net, x, number: net.first(x) * 0 + 1 / number).eval()
    compiled = torch.compile(net, backend="fastdiff")
    with torch.no_grad():
        for number in (0.0, -0.0, 0.0):
            sign = torch.tensor(number, dtype=torch.float64)
            torch.testing.assert_close(compiled(_MAPS, sign), net(_MAPS, sign))
