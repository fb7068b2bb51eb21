"""The sines and cosines of a time embedding: every repository's spelling is one kernel, with eager torch's values."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch import nn

from fastdiff.engine.fuse_sinusoids import reference, sinusoids
from fastdiff.engine.program import Program
from fastdiff.engine.settings import Settings
from fastdiff.nn.embeddings import sinusoidal
from fastdiff.ops import extension

pytestmark = pytest.mark.skipif(bool(extension.MISSING), reason="the kernel is in C++")
HALF = 20


def frequencies():
    return torch.exp(-math.log(10000) * torch.arange(HALF) / HALF)


def diffusers(t, flip=False):
    t = t * torch.ones(t.shape[0], dtype=t.dtype)
    angles = 1.0 * (t[:, None].float() * frequencies()[None, :])
    code = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
    return torch.cat([code[:, HALF:], code[:, :HALF]], dim=-1) if flip else code


def guided(t):
    angles = t[:, None].float() * frequencies()[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def lucidrains(t):
    angles = t[:, None] * frequencies()[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def ours(t):
    return sinusoidal(t, 2 * HALF)


def other_angles(t):
    angles = t[:, None].float() * frequencies()
    return torch.cat([angles.sin(), (angles + 1).cos()], dim=1)


def same_halves(t):
    code = lucidrains(t)
    return torch.cat([code[:, HALF:], code[:, HALF:]], dim=-1)


def run(embed, t):
    made = []

    class Net(nn.Module):
        def forward(self, t):
            return embed(t) * 2

    def take(module, inputs, **_):
        made.append(Program(module, Settings()))
        return made[-1]

    with torch.no_grad():
        compiled = torch.compile(Net(), backend=take, dynamic=False)
        compiled(t)
        results = [(compiled(s), embed(s) * 2) for s in (t, t + 3)]
    (plan,) = made[0].plans.values()
    return results, [node.target for node in plan.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("embed", [diffusers, lambda t: diffusers(t, flip=True), guided, lucidrains, ours])
@pytest.mark.parametrize("t", [torch.tensor([999]), torch.tensor([0.0, 0.25, 731.5])])
def test_every_spelling_is_one_kernel(embed, t):
    results, targets = run(embed, t)
    assert targets.count(sinusoids) == 1
    assert not {torch.ops.aten.sin.default, torch.ops.aten.cat.default}.intersection(targets)
    for got, wanted in results:
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=0, atol=3e-7)


@pytest.mark.parametrize("embed", [other_angles, same_halves])
def test_what_only_looks_like_one_stays(embed):
    results, targets = run(embed, torch.tensor([3, 500]))
    assert torch.ops.aten.cat.default in targets
    for got, wanted in results:
        torch.testing.assert_close(got, wanted, rtol=0, atol=3e-7)


def test_doubles_stay_doubles():
    results, targets = run(
        lambda t: torch.cat([(t[:, None] * frequencies()).sin()] * 2, 1), torch.rand(2).double()
    )
    assert sinusoids not in targets
    assert all(torch.equal(got, wanted) for got, wanted in results)


@pytest.mark.parametrize("cosines_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float64, torch.bfloat16])
def test_values_are_those_of_float64(dtype, cosines_first):
    t = torch.linspace(-1000, 1000, 301).to(dtype)
    angles = (t.float()[:, None] * frequencies()).double()
    halves = [angles.sin(), angles.cos()]
    wanted = torch.cat(halves[::-1] if cosines_first else halves, 1)
    for function in (sinusoids, reference):
        assert (function(t, frequencies(), cosines_first).double() - wanted).abs().max() < 1.3e-7


def test_wrong_calls_are_refused():
    raw, t, f = torch.ops.fastdiff.sinusoids_cpp, torch.zeros(2), torch.zeros(3)
    for out, times, of, told in [
        (torch.zeros(2, 5), t, f, "out must be"),
        (torch.zeros(2, 6), t.double(), f, "times must be"),
        (torch.zeros(2, 6), t, f[None], "frequencies must have one dimension"),
        (torch.zeros(2, 6).t(), t, f, "out must be"),
    ]:
        with pytest.raises(RuntimeError, match=told):
            raw(out, times, of, False)
    both = torch.zeros(12)
    with pytest.raises(RuntimeError, match="share no memory"):
        raw(both.view(2, 6), both[:2], f, False)


def test_a_tape_keeps_the_times_that_its_call_reads():
    ops, times, frequencies = torch.ops.fastdiff, torch.zeros(40000), torch.ones(2)
    number, out, alive = ops.tape_new(), torch.empty(40000, 4), weakref.ref(times)
    ops.tape_open(number)
    ops.sinusoids_cpp(out, times, frequencies, False)
    ops.tape_open(0)
    del times
    assert alive() is not None
    ops.tape_run(number, 0, 1)
    assert torch.equal(out, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(40000, 4))
    ops.tape_delete(number)
    assert alive() is None
