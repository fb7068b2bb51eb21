"""conv1x1: closed forms, float64, and what it promises beside numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastdiff.ops import NormFactors, channel_statistics, conv1x1, norm_factors, use_backend
from fastdiff.ops.conv1x1 import last, pack, stretches

from .conftest import needs_cpp
from .test_conv3x3 import assert_exact_enough, assert_statistics, drawn, in_double

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]
OPTIONS = ["x2", "channels", "pixel", "activate", "bias", "add", "residual"]
SIZES = [(), (1,), (70,), (4, 4), (9, 13), (16, 16), (2, 3, 5)]


def made(seed, batch, channels, outs, size, options):
    """Keyword arguments of conv1x1 with the options named."""
    full = channels + (5 if "x2" in options else 0)

    def optional(name, k, *shape):
        return last(drawn(batch, *shape, seed=seed + k)) if name in options else None

    arguments = {
        "x": last(drawn(batch, channels, *size, seed=seed)),
        "weight": drawn(outs, full, seed=seed + 1) / full**0.5,
        "bias": drawn(outs, seed=seed + 2) if "bias" in options else None,
        "x2": optional("x2", 3, 5, *size),
        "add": optional("add", 4, outs),
        "residual": optional("residual", 5, outs, *size),
        "activate": "activate" in options,
        "gain": 0.7 if "residual" in options else 1.0,
    }
    if "channels" in options:
        pixel = drawn(batch, *size, seed=seed + 6).abs() if "pixel" in options else None
        arguments["norm"] = NormFactors(drawn(batch, 2, full, seed=seed + 7), pixel)
    return arguments


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(0, 3),
    channels=st.sampled_from([1, 3, 16, 31, 64, 96]),
    outs=st.sampled_from([1, 3, 16, 33, 64, 130]),
    size=st.sampled_from(SIZES),
    options=st.sets(st.sampled_from(OPTIONS)),
    statistics=st.booleans(),
)
@example(0, 2, 64, 64, (16, 16), set(OPTIONS), True)
@example(0, 2, 64, 48, (16, 16), set(), False)
@example(0, 9, 64, 130, (4, 4), set(OPTIONS), True)
@example(0, 1, 96, 130, (1,), {"bias"}, False)
@example(0, 5, 64, 64, (9, 13), {"x2"}, True)
def test_it_is_exact_enough(backend, seed, batch, channels, outs, size, options, statistics):
    arguments = made(seed, batch, channels, outs, size, options)
    with use_backend(backend):
        out = conv1x1(**arguments, statistics=statistics)
    if statistics:
        out, sums = out
        assert sums.shape == (batch, stretches(out.shape), 3, outs)
        assert_statistics(sums, out.reshape(batch, outs, math.prod(size), 1))
    with use_backend("torch"):
        plain, exact = conv1x1(**arguments), conv1x1(**in_double(arguments))
    assert out.movedim(1, -1).is_contiguous() and out.shape == exact.shape
    assert_exact_enough(out, plain, exact, channels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_permutation_moves_channels_and_the_norm_comes_first(backend):
    x, order = last(drawn(2, 40, 5, 7)), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    norm = NormFactors(torch.tensor([2.0, 1.0]).reshape(1, 2, 1).expand(2, 2, 40).contiguous())
    with use_backend(backend):
        out = conv1x1(x, pack(torch.eye(40)[order]), norm=norm)
    torch.testing.assert_close(out, (2 * x + 1)[:, order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_survive_a_mean_far_from_zero(backend):
    with use_backend(backend):
        out, sums = conv1x1(
            drawn(2, 32, 16, 12), drawn(32, 32) / 6, torch.full((32,), 100.0), statistics=True
        )
    assert_statistics(sums, out)
    assert (sums[:, :, 2] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_and_product_equal_torch(backend):
    x, weight = drawn(2, 32, 16, 16), drawn(96, 32) / 6
    with use_backend(backend):
        norm = NormFactors(norm_factors(channel_statistics(x), 8))
        out = conv1x1(x, weight, norm=norm)
    whole = torch.nn.functional.conv2d(torch.group_norm(x, 8), weight[:, :, None, None])
    torch.testing.assert_close(out, whole, rtol=1e-4, atol=1e-5)


@needs_cpp
def test_neither_batch_nor_threads_change_a_bit():
    arguments, threads = made(0, 3, 64, 80, (16, 16), set(OPTIONS)), torch.get_num_threads()
    together, sums = conv1x1(**arguments, statistics=True)
    torch.set_num_threads(1)
    alone, own = conv1x1(**made(0, 3, 64, 80, (16, 16), set(OPTIONS)), statistics=True)
    torch.set_num_threads(threads)
    assert torch.equal(together, alone) and torch.equal(sums, own)


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_may_be_the_residual(backend):
    x, weight, residual = drawn(2, 32, 9, 9), pack(drawn(32, 32)), drawn(2, 32, 9, 9, seed=1)
    with use_backend(backend):
        apart = conv1x1(x, weight, residual=residual)
        inside = conv1x1(x, weight, residual=residual, out=residual)
    assert inside is residual and torch.equal(inside, apart)


def test_it_has_gradients():
    arguments = made(0, 2, 16, 16, (8, 8), {"channels", "activate", "bias", "residual"})
    arguments["x"].requires_grad_()
    arguments["weight"].requires_grad_()
    conv1x1(**arguments).square().sum().backward()
    assert arguments["x"].grad.abs().sum() > 0 and arguments["weight"].grad.abs().sum() > 0


def test_errors_name_what_is_wrong():
    x, weight = drawn(2, 8, 4, 4), drawn(8, 8)
    with pytest.raises(TypeError, match=r"conv1x1: x must be float32 \(B, C, ...\)"):
        conv1x1(x.int(), weight)
    with pytest.raises(ValueError, match=r"weight must be torch.float32 \(Cout, 8\)"):
        conv1x1(x, drawn(8, 9))
    with pytest.raises(ValueError, match=r"norm.channels must be torch.float32 \(2, 2, 8\)"):
        conv1x1(x, weight, norm=NormFactors(torch.ones(2, 8)))
    with pytest.raises(TypeError, match="norm must be NormFactors"):
        conv1x1(x, weight, norm=torch.ones(2, 2, 8))
    with pytest.raises(ValueError, match="out must not share memory with the input"):
        conv1x1(x, weight, out=x)
    with pytest.raises(ValueError, match="out must be channels last"):
        conv1x1(x, weight, out=torch.empty(2, 8, 4, 4))
    with pytest.raises(ValueError, match=r"residual must be torch.float32 \(2, 8, 4, 4\)"):
        conv1x1(x, weight, residual=drawn(2, 8, 8, 8))
    with pytest.raises(ValueError, match=r"x2 must be torch.float32 \(2, 3, 4, 4\)"):
        conv1x1(x, weight, x2=drawn(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"weight must be float32 \(Cout, Cin\)"):
        pack(drawn(8, 8, 1))


@needs_cpp
@pytest.mark.parametrize("place", [0, 40])
def test_a_loud_pixel_costs_the_statistics_no_digits(place):
    """The first of a stretch or another: sums of distances from the mean so far, not from the first pixel.

    Five to eight roundings of a float32 are allowed, of the mean and of the squares; torch.mean errs by three.
    """
    residual = torch.zeros(2, 16, 63)
    residual[:, :, place] = 1e5
    out, statistics = conv1x1(drawn(2, 16, 63), drawn(16, 16), residual=residual, statistics=True)
    mean = out.double().mean(2)
    squares = (out.double() - mean.unsqueeze(2)).square().sum(2)
    assert (statistics[:, 0, 1] / mean - 1).abs().max() < 6e-7
    assert (statistics[:, 0, 2] / squares - 1).abs().max() < 1e-6


@needs_cpp
def test_out_shares_no_memory_with_what_is_read():
    """Bias, add and norm factors are read while the output is written."""
    memory = torch.zeros(4096)
    x, weight, out = drawn(2, 16, 8), drawn(16, 16), memory[:256].view(2, 8, 16).transpose(1, 2)
    for name, shape in (("bias", (16,)), ("add", (2, 16))):
        part = memory[100 : 100 + math.prod(shape)].view(shape)
        with pytest.raises(ValueError, match=f"conv1x1: out must not share memory .*, got part of {name}"):
            conv1x1(x, weight, out=out, **{name: part})
    norm = NormFactors(memory[255 : 255 + 64].view(2, 2, 16))
    with pytest.raises(ValueError, match=r"got part of norm\.channels"):
        conv1x1(x, weight, out=out, norm=norm)
    data = pack(weight)
    with pytest.raises(ValueError, match=r"conv1x1: weight must be what pack\(\) gives, .* got 7 numbers"):
        conv1x1(x, data._replace(data=torch.zeros(7)))
    with pytest.raises(TypeError, match="conv1x1: activate must be True or False, got str"):
        conv1x1(x, weight, activate="yes")
