"""Tapes: kernels that run again on the same memory give what single steps give, whatever comes between calls."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fastdiff.engine import program
from fastdiff.engine.buffers import Buffers, Full
from fastdiff.engine.program import Program
from fastdiff.ops import extension

pytestmark = pytest.mark.skipif(bool(extension.MISSING), reason="a tape holds kernels in C++")


class _Net(nn.Module):
    """Norms, convolutions, a skip, attention, and steps that torch computes between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in (32, 32, 64))
        self.convs = nn.ModuleList(nn.Conv2d(c, 32, 3, padding=1) for c in (32, 32, 64))
        self.qkv, self.project = nn.Conv2d(32, 96, 1), nn.Conv2d(32, 32, 1)
        self.time, self.grouped = nn.Linear(8, 32), nn.Conv2d(32, 32, 3, padding=1, groups=4)

    def forward(self, x, t):
        embedding = self.time(torch.cos(t[:, None] * torch.arange(8)))
        skip = h = self.grouped(self.first(x))
        h = self.convs[0](nn.functional.silu(self.norms[0](h))) + embedding[:, :, None, None]
        b, c, height, width = h.shape
        q, k, v = self.qkv(h).reshape(b, 3, 2, c // 2, height * width).transpose(-1, -2).unbind(1)
        a = nn.functional.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(h.shape)
        h = self.convs[1](nn.functional.silu(self.norms[1](h + self.project(a)))).cumsum(1) / 8
        return self.convs[2](nn.functional.silu(self.norms[2](torch.cat([h, skip], 1)))), h


def _made(backend=None):
    torch.manual_seed(0)
    net, made = _Net().eval(), []

    def take(module, inputs, **_):
        made.append(Program(module, program.Settings()))
        return made[-1]

    return net, torch.compile(net, backend=backend or take), made


def _inputs(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 8, 8, generator=generator), torch.rand(batch, generator=generator)


def _tape(made):
    (packed,) = (p for s in made[0].weights._sets.values() for p in s._constants.values())
    return packed.tape


def test_a_tape_gives_every_bit_of_the_steps_one_by_one():
    _, compiled, made = _made()
    with torch.no_grad():
        results = [compiled(*_inputs(seed)) for seed in (0, 1, 0)]
        made[0]._turn.acquire()  # as if another thread were in the buffers: fresh memory is used
        plain = [compiled(*_inputs(seed)) for seed in (0, 1)]
    tape = _tape(made)
    assert torch.ops.fastdiff.tape_size(tape.number) >= 9
    for got, wanted in zip((*results[:2], results[2]), (*plain, plain[0]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_tape_is_right_for_other_inputs_layouts_and_modes():
    net, compiled, _ = _made()
    x, t = _inputs(2)
    last = x.contiguous(memory_format=torch.channels_last)
    strided = torch.stack([x, x], -1)[..., 0]
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        for given in (x, last, strided):
            with mode():
                got, wanted = compiled(given, t), net(given, t)
            for a, b in zip(got, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_results_stay_when_the_tape_runs_again():
    _, compiled, _ = _made()
    with torch.no_grad():
        compiled(*_inputs(0))
        first = compiled(*_inputs(1))
        kept = [r.clone() for r in first]
        second = compiled(*_inputs(2))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert not torch.equal(first[0], second[0])


def test_threads_at_once():
    net, compiled, _ = _made()
    with torch.no_grad():
        compiled(*_inputs(0))
        wanted = [net(*_inputs(seed)) for seed in range(16)]

        def call(seed):
            with torch.no_grad():
                return [compiled(*_inputs(seed)) for _ in range(8)]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(call, range(16)))
    for results, right in zip(found, wanted, strict=True):
        for result in results:
            for a, b in zip(result, right, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_too_large_for_a_tape(monkeypatch):
    monkeypatch.setattr(program, "MOST_BYTES", 1000)
    net, compiled, made = _made()
    with torch.no_grad():
        got, wanted = compiled(*_inputs(0)), net(*_inputs(0))
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-4, atol=1e-5)
    assert _tape(made) is False and made[0].buffers.nbytes() == 0


def test_edits_of_weights_are_seen_by_a_tape():
    net, compiled, _ = _made()
    with torch.no_grad():
        compiled(*_inputs(0))
        for p in net.parameters():
            p.data.mul_(1.1).add_(0.01)
        torch.testing.assert_close(compiled(*_inputs(0)), net(*_inputs(0)), rtol=1e-4, atol=1e-4)
        net.load_state_dict({k: v / 2 for k, v in net.state_dict().items()}, assign=True)
        torch.testing.assert_close(compiled(*_inputs(0)), net(*_inputs(0)), rtol=1e-4, atol=1e-4)


def test_tapes_go_with_their_programs():
    _, compiled, made = _made()
    with torch.no_grad():
        compiled(*_inputs(0))
    number = _tape(made).number
    del compiled
    made.clear()
    torch.compiler.reset()
    with pytest.raises(RuntimeError, match="no tape"):
        torch.ops.fastdiff.tape_size(number)


def test_buffers_go_round_and_end():
    buffers = Buffers(most=1000)
    first = buffers.like(torch.empty(4, 8).t())
    assert first.stride() == (1, 8) and buffers.nbytes() == 128
    held = buffers.hold((first, first[1:]))
    other = buffers.like(torch.empty(32))
    assert other.data_ptr() != first.data_ptr()
    buffers.release(held)
    assert buffers.like(torch.empty(30)).data_ptr() in (first.data_ptr(), other.data_ptr())
    with pytest.raises(Full):
        buffers.like(torch.empty(200))
    assert buffers.like(torch.empty(0, 3)).shape == (0, 3)


def test_an_open_tape_that_is_deleted_takes_calls_until_it_is_closed():
    """Under ASan: what it is written to must not be memory that was given back."""
    ops, x = torch.ops.fastdiff, torch.randn(1, 4, 2, 2).to(memory_format=torch.channels_last)
    number, out = ops.tape_new(), torch.zeros(1, 2, 2)
    ops.tape_open(number)
    ops.tape_delete(number)
    ops.pixel_norms_cpp(out, x, None, 1e-6)
    ops.tape_open(0)
    assert not out.any()
    ops.pixel_norms_cpp(out, x, None, 1e-6)
    assert out.all()
    with pytest.raises(RuntimeError, match="there is no tape"):
        ops.tape_run(number, 0, 1)


def test_a_tape_keeps_the_memory_of_its_tensors_and_gives_it_back():
    ops, x, out = torch.ops.fastdiff, torch.full((1, 4, 300, 300), 2.0), torch.empty(1, 300, 300)
    x, number, result = x.to(memory_format=torch.channels_last), ops.tape_new(), out.view(-1)
    ops.tape_open(number)
    ops.pixel_norms_cpp(out, x, None, 1e-6)
    ops.tape_open(0)
    place, alive = x.data_ptr(), weakref.ref(x)
    del x, out
    others = [torch.zeros(1, 4, 300, 300) for _ in range(4)]
    assert place not in [other.data_ptr() for other in others]
    ops.tape_run(number, 0, 1)
    assert torch.equal(result, torch.full_like(result, 0.5))
    assert alive() is not None
    ops.tape_delete(number)
    assert alive() is None


@pytest.mark.parametrize(
    "change", [lambda x: x.untyped_storage().resize_(0), lambda x: x.set_(torch.ones(2))]
)
def test_a_tape_does_not_run_on_memory_that_its_tensors_have_left(change):
    ops, x, number = torch.ops.fastdiff, torch.ones(1, 1, 300, 300), torch.ops.fastdiff.tape_new()
    ops.tape_open(number)
    ops.pixel_norms_cpp(torch.empty(1, 300, 300), x, None, 1e-6)
    ops.tape_open(0)
    ops.tape_run(number, 0, 1)
    change(x)
    with pytest.raises(RuntimeError, match="tape: tensors must lie where they lay"):
        ops.tape_run(number, 0, 1)
    ops.tape_delete(number)
