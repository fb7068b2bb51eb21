"""conv3x3: closed forms, every algorithm against float64, and what it promises beside numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fastdiff.ops import NormFactors, channel_statistics, conv3x3, norm_factors, pixel_norms, use_backend
from fastdiff.ops.conv3x3 import choose, pack, reference, stretches

from .conftest import needs_cpp

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]
ALGORITHMS = ["direct", "f23", "f43", "f43-lean"]
OPTIONS = ["x2", "channels", "pixel", "activate", "upsample", "bias", "add", "residual", "statistics"]


def drawn(*shape, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def make(seed, batch, channels, outs, height, width, options):
    """Keyword arguments of conv3x3 with the options named."""
    full = channels + (5 if "x2" in options else 0)
    scale = 2 if "upsample" in options else 1
    made = {
        "x": drawn(batch, channels, height, width, seed=seed),
        "weight": drawn(outs, full, 3, 3, seed=seed + 1) / (9 * full) ** 0.5,
        "x2": drawn(batch, 5, height, width, seed=seed + 2) if "x2" in options else None,
        "bias": drawn(outs, seed=seed + 3) if "bias" in options else None,
        "add": drawn(batch, outs, seed=seed + 4) if "add" in options else None,
        "residual": drawn(batch, outs, height * scale, width * scale, seed=seed + 5)
        if "residual" in options
        else None,
        "gain": 0.7 if "residual" in options else 1.0,
        "activate": "activate" in options,
        "upsample": "upsample" in options,
    }
    if "channels" in options:
        pixel = drawn(batch, height, width, seed=seed + 6).abs() if "pixel" in options else None
        made["norm"] = NormFactors(drawn(batch, 2, full, seed=seed + 7), pixel)
    return made


def in_double(arguments):
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    if wide.get("norm") is not None:
        norm = wide["norm"]
        wide["norm"] = NormFactors(norm[0].double(), None if norm[1] is None else norm[1].double())
    return wide


def assert_exact_enough(out, plain, exact, channels):
    """error <= 4 x torch's in root mean square (+ 2 ulp of the typical value), and 1e-4 of the largest value.

    Of few outputs, thin maps, or sums over few channels, torch may happen to be exact: there the floor is 16 ulp.
    Fewer than 64 outputs may all be small by cancellation: they are held against 1, the size that these tests draw.
    """
    if not exact.numel():
        return
    ours, torchs = (out.double() - exact), (plain.double() - exact)
    few = exact.numel() < 64
    thin = min(exact.shape[2:], default=4) < 4  # most of what a sum reads is padding
    ulps = 2 if exact.numel() >= 1024 and channels >= 16 and not thin else 32 if few else 16
    typical, largest = (
        exact.square().mean().sqrt().clamp_min(float(few)),
        exact.abs().max().clamp_min(float(few)),
    )
    floor = ulps * torch.finfo(torch.float32).eps * typical
    assert ours.square().mean().sqrt() <= 4 * torchs.square().mean().sqrt() + floor
    assert ours.abs().max() <= 1e-4 * largest


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ones_count_the_neighbours_and_padding_stays_zero(backend, algorithm):
    """Factor 0 and offset 1 make all inputs 1: each output is the number of its neighbours inside, times channels."""
    x = drawn(2, 20, 6, 5)
    norm = NormFactors(torch.tensor([0.0, 1.0]).reshape(1, 2, 1).expand(2, 2, 20).contiguous())
    with use_backend(backend):
        out = conv3x3(x, torch.ones(18, 20, 3, 3), norm=norm, algorithm=algorithm)
    rows = torch.tensor([2.0, 3, 3, 3, 3, 2]).unsqueeze(1) * torch.tensor([2.0, 3, 3, 3, 2])
    torch.testing.assert_close(out, (20 * rows).expand(2, 18, 6, 5), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_centred_one_is_the_identity(backend, algorithm):
    x, weight = drawn(1, 24, 7, 9), torch.zeros(24, 24, 3, 3)
    weight[:, :, 1, 1] = torch.eye(24)
    with use_backend(backend):
        out = conv3x3(x, weight, algorithm=algorithm)
        doubled = conv3x3(x, weight, upsample=True, algorithm=algorithm)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        doubled, x.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=1e-5, atol=1e-5
    )


cases = {
    "seed": st.integers(0, 2**31),
    "batch": st.integers(0, 3),
    "channels": st.sampled_from([1, 3, 16, 31, 48, 64, 96]),
    "outs": st.sampled_from([1, 3, 16, 33, 48, 64, 130]),
    "height": st.integers(1, 19),
    "width": st.integers(1, 19),
    "options": st.sets(st.sampled_from(OPTIONS)),
    "algorithm": st.sampled_from(["auto", *ALGORITHMS]),
}
USUAL = {"seed": 0, "batch": 2, "channels": 64, "outs": 64, "height": 16, "width": 16}


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=80, deadline=None)
@given(**cases)
@example(**USUAL, options=set(OPTIONS), algorithm="f43")
@example(**USUAL, options=set(OPTIONS), algorithm="f23")
@example(**USUAL, options=set(), algorithm="f43")
@example(**(USUAL | {"outs": 48}), options=set(OPTIONS), algorithm="f43-lean")
@example(**(USUAL | {"width": 70, "height": 5}), options={"statistics", "activate"}, algorithm="f43")
@example(**(USUAL | {"width": 70, "height": 5}), options={"statistics", "x2"}, algorithm="f23")
@example(**(USUAL | {"width": 1, "height": 1}), options=set(OPTIONS), algorithm="f43")
@example(**(USUAL | {"batch": 0}), options=set(OPTIONS), algorithm="f43")
@example(**(USUAL | {"batch": 9, "width": 4, "height": 4}), options=set(OPTIONS), algorithm="f43")
@example(**(USUAL | {"batch": 5, "width": 3, "height": 2}), options=set(OPTIONS), algorithm="f23")
def test_every_algorithm_is_exact_enough(
    backend, seed, batch, channels, outs, height, width, options, algorithm
):
    arguments = make(seed, batch, channels, outs, height, width, options)
    with use_backend(backend):
        out = conv3x3(**arguments, statistics="statistics" in options, algorithm=algorithm)
    if "statistics" in options:
        out, statistics = out
        assert_statistics(statistics, out)
    with use_backend("torch"):
        plain, exact = conv3x3(**arguments), conv3x3(**in_double(arguments))
    assert out.is_contiguous(memory_format=torch.channels_last) and out.shape == exact.shape
    assert_exact_enough(out, plain, exact, channels)


def assert_statistics(found, out):
    """Joined, the stretches are mean and variance of every channel."""
    count, mean, squares = found.double().unbind(2)
    assert (count.sum(1) == out.shape[2] * out.shape[3]).all()
    if not out.shape[0]:
        return
    exact_mean = out.double().mean((2, 3))
    joined = (count * mean).sum(1) / count.sum(1)
    spread = (squares + count * (mean - joined.unsqueeze(1)).square()).sum(1)
    scale = out.double().abs().amax((2, 3))
    assert ((joined - exact_mean).abs() <= 1e-6 * scale).all()
    exact = (out.double() - exact_mean[:, :, None, None]).square().sum((2, 3))
    assert ((spread - exact).abs() <= 1e-5 * exact + count.sum(1) * (1e-6 * scale).square()).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (16, 16), (17, 40), (64, 9)])
def test_stride_two_takes_every_second_pixel(backend, before, size):
    arguments = make(0, 2, 24, 48, *size, {"x2", "channels", "activate", "bias", "add"})
    full = torch.cat([arguments["x"], arguments["x2"]], 1).double()
    factor, offset = arguments["norm"].channels.double()[:, :, :, None, None].unbind(1)
    v = functional.pad(functional.silu(full * factor + offset), (before, 1, before, 1))
    exact = functional.conv2d(v, arguments["weight"].double(), arguments["bias"].double(), stride=2)
    exact = exact + arguments["add"].double()[:, :, None, None]
    with use_backend(backend):
        out, sums = conv3x3(**arguments, stride=2, before=before, statistics=True)
    assert out.shape == exact.shape and out.is_contiguous(memory_format=torch.channels_last)
    assert (out - exact).abs().max() <= 1e-5 * exact.abs().max()
    assert_statistics(sums, out)


@needs_cpp
@pytest.mark.parametrize("outs", [7, 32, 72])
def test_few_pixels_are_summed_in_slices_by_any_number_of_threads(outs):
    """The depth, 9 * 40, is no multiple of a slice; every thread makes the input of its own panels."""
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(1, 40, 4, 4, generator=g), torch.randn(outs, 40, 3, 3, generator=g)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with use_backend("cpp"):
                results.append(conv3x3(x, weight, algorithm="direct"))
    finally:
        torch.set_num_threads(before)
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_statistics_survive_a_mean_far_from_zero(backend, algorithm):
    x, weight = drawn(2, 32, 16, 12), drawn(32, 32, 3, 3, seed=1) / 17
    with use_backend(backend):
        out, statistics = conv3x3(x, weight, torch.full((32,), 1000.0), statistics=True, algorithm=algorithm)
    assert_statistics(statistics, out)
    assert statistics.shape[1] >= 1 and (statistics[:, :, 2] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_block_of_a_network_equals_torch(backend):
    """GroupNorm, SiLU, conv, time embedding, GroupNorm with scale-shift, SiLU, conv, residual."""
    x, first, second = drawn(2, 32, 16, 16), drawn(64, 32, 3, 3) / 17, drawn(64, 64, 3, 3) / 24
    time, scale, shift = drawn(2, 64), drawn(2, 64, seed=1), drawn(2, 64, seed=2)
    skip = drawn(2, 64, 16, 16, seed=4)
    with use_backend(backend):
        norm = NormFactors(norm_factors(channel_statistics(x), 8))
        h, sums = conv3x3(x, first, norm=norm, activate=True, add=time, statistics=True)
        norm = NormFactors(norm_factors(sums, 8, scale=scale, shift=shift))
        out = conv3x3(h, second, norm=norm, activate=True, residual=skip)
    h = functional.conv2d(functional.silu(torch.group_norm(x, 8)), first, padding=1) + time[:, :, None, None]
    h = torch.group_norm(h, 8) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(
        out, functional.conv2d(functional.silu(h), second, padding=1) + skip, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_rms_norm_of_two_maps(backend):
    x, x2, weight = drawn(2, 24, 8, 8), drawn(2, 40, 8, 8, seed=1), drawn(64, 64, 3, 3) / 24
    gains = torch.stack([drawn(64, seed=2), torch.zeros(64)]).expand(2, 2, 64).contiguous()
    with use_backend(backend):
        out = conv3x3(x, weight, x2=x2, norm=NormFactors(gains, pixel_norms(x, x2)), activate=True)
    v = functional.normalize(torch.cat([x, x2], 1), dim=1) * 8 * gains[:, 0, :, None, None]
    torch.testing.assert_close(
        out, functional.conv2d(functional.silu(v), weight, padding=1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_may_be_the_residual(backend):
    x, weight, residual = drawn(2, 32, 9, 9), pack(drawn(32, 32, 3, 3), "f43"), drawn(2, 32, 9, 9, seed=1)
    with use_backend(backend):
        apart = conv3x3(x, weight, residual=residual)
        inside = conv3x3(x, weight, residual=residual, out=residual)
    assert inside is residual and torch.equal(inside, apart)


def test_it_has_gradients():
    arguments = make(0, 2, 16, 16, 8, 8, {"channels", "activate", "bias", "residual"})
    arguments["x"].requires_grad_()
    arguments["weight"].requires_grad_()
    conv3x3(**arguments).square().sum().backward()
    assert arguments["x"].grad.abs().sum() > 0 and arguments["weight"].grad.abs().sum() > 0


def test_errors_name_what_is_wrong():
    x, weight = drawn(2, 8, 4, 4), drawn(8, 8, 3, 3)
    with pytest.raises(TypeError, match=r"conv3x3: x must be float32 \(B, C, H, W\)"):
        conv3x3(x[0], weight)
    with pytest.raises(ValueError, match=r"weight must be torch.float32 \(Cout, 8, 3, 3\)"):
        conv3x3(x, drawn(8, 9, 3, 3))
    with pytest.raises(
        ValueError, match="algorithm must be one of direct, f23, f43, f43-lean, auto, got 'f63'"
    ):
        conv3x3(x, weight, algorithm="f63")
    with pytest.raises(ValueError, match="algorithm must be 'auto' or that of the packed weight"):
        conv3x3(x, pack(weight, "f23"), algorithm="f43")
    with pytest.raises(ValueError, match=r"norm.channels must be torch.float32 \(2, 2, 8\)"):
        conv3x3(x, weight, norm=NormFactors(torch.ones(2, 8)))
    with pytest.raises(TypeError, match="norm must be NormFactors"):
        conv3x3(x, weight, norm=torch.ones(2, 2, 8))
    with pytest.raises(ValueError, match="out must not share memory with the input"):
        conv3x3(x, weight, out=x)
    with pytest.raises(ValueError, match="out must be channels last"):
        conv3x3(x, weight, out=torch.empty(2, 8, 4, 4))
    with pytest.raises(ValueError, match=r"residual must be torch.float32 \(2, 8, 8, 8\)"):
        conv3x3(x, weight, upsample=True, residual=x)
    with pytest.raises(
        ValueError, match="stride and before must be 1 and 1, 2 and 0, or 2 and 1, got 1 and 0"
    ):
        conv3x3(x, weight, before=0)
    with pytest.raises(ValueError, match="stride must be 1 for algorithm 'f43' and for upsample, got 2"):
        conv3x3(x, weight, stride=2, algorithm="f43")
    with pytest.raises(ValueError, match="memory must be 'default' or 'low'"):
        choose(1, 64, 64, 8, 8, memory="tiny")
    with pytest.raises(ValueError, match=r"weight must be \(Cout, Cin, 3, 3\)"):
        pack(drawn(8, 8, 1, 1), "f43")


def test_the_choice_is_known_and_may_ignore_the_batch():
    assert choose(4, 128, 128, 32, 32, threads=2) == "f43"
    assert choose(4, 256, 256, 16, 16, memory="low") in ("f23", "f43-lean", "direct")
    assert choose(None, 256, 256, 16, 16) in ALGORITHMS
    assert (
        choose(1, 256, 256, 16, 16, threads=2) == "f43-lean"
        and choose(1, 256, 256, 4, 4, threads=2) == "direct"
    )
    assert stretches("f43", 17, 70) == 5 * 2 and stretches("f23", 17, 70) == 5 * 3
    assert reference.__doc__
