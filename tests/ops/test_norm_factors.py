"""channel_statistics, pixel_norms and norm_factors: against float64 and torch's own norms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.ops import channel_statistics, norm_factors, pixel_norms, use_backend
from fastdiff.ops.channel_statistics import stretches

from .conftest import assert_as_exact_as_torch, needs_cpp
from .norm_cases import VALUES, valued

BACKENDS = [pytest.param("torch"), pytest.param("cpp", marks=needs_cpp)]


def drawn(*shape, seed=0, values="usual"):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return valued(x, values).contiguous(memory_format=torch.channels_last)


def applied(x, factors):
    return x * factors[:, 0, :, None, None] + factors[:, 1, :, None, None]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(0, 3),
    channels=st.sampled_from([1, 3, 16, 48, 130]),
    size=st.tuples(st.integers(1, 33), st.integers(1, 33)),
    values=st.sampled_from(VALUES),
)
def test_statistics_are_those_of_every_stretch(backend, seed, batch, channels, size, values):
    x = drawn(batch, channels, *size, seed=seed, values=values)
    with use_backend(backend):
        found = channel_statistics(x)
    assert found.shape == (batch, stretches(channels, size[0] * size[1]), 3, channels)
    exact = channel_statistics(x.double())
    assert torch.equal(found[:, :, 0].double(), exact[:, :, 0])
    if batch:
        largest = x.abs().max().double()
        assert (found[:, :, 1] - exact[:, :, 1]).abs().max() <= 4e-7 * largest
        slack = 1e-5 * exact[:, :, 2] + exact[:, :, 0] * (1e-6 * largest) ** 2
        assert ((found[:, :, 2] - exact[:, :, 2]).abs() <= slack).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_do_not_depend_on_batch_or_threads(backend):
    x = drawn(3, 70, 40, 40)
    threads = torch.get_num_threads()
    with use_backend(backend):
        together = channel_statistics(x)
        torch.set_num_threads(1)
        alone = channel_statistics(x[1:2].contiguous(memory_format=torch.channels_last))
        torch.set_num_threads(threads)
    if backend == "cpp":
        assert torch.equal(together[1:2], alone)
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 4, 32])
@pytest.mark.parametrize("values", ["usual", "large", "one loud pixel"])
def test_factors_are_a_group_norm(backend, groups, values):
    x, weight, bias = drawn(3, 96, 17, 9, values=values), torch.randn(96), torch.randn(96)
    with use_backend(backend):
        found = applied(x, norm_factors(channel_statistics(x), groups, weight, bias, eps=1e-6))
    plain = torch.group_norm(x, groups, weight, bias, 1e-6)
    exact = torch.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-6)
    assert_as_exact_as_torch(found, plain, exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_maps_share_groups_that_reach_across_both(backend):
    x, y = drawn(2, 40, 8, 8), 3 + drawn(2, 56, 8, 8, seed=1)
    scale, shift = torch.randn(2, 192).chunk(2, dim=1)
    with use_backend(backend):
        parts = channel_statistics(x), channel_statistics(y)
        found = applied(torch.cat([x, y], 1), norm_factors(parts, 8, scale=scale, shift=shift))
    exact = torch.group_norm(torch.cat([x, y], 1).double(), 8) * (1 + scale.double())[:, :, None, None]
    assert (found - exact - shift.double()[:, :, None, None]).abs().max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [(1, 0), (48, 0), (20, 50)])
def test_pixel_norms_are_an_rms_norm(backend, channels):
    x = drawn(2, channels[0], 5, 7)
    x2 = drawn(2, channels[1], 5, 7, seed=1) if channels[1] else None
    x[0, :, 2, 2] = 0
    with use_backend(backend):
        found = pixel_norms(x, x2, eps=1e-3)
    both = x.double() if x2 is None else torch.cat([x, x2], 1).double()
    exact = both.shape[1] ** 0.5 / both.norm(dim=1).clamp_min(1e-3)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_means_far_from_zero_cost_a_small_group_no_digits(backend):
    """Groups of two channels around 1000: the distance of two means is not taken between rounded means."""
    means = 1000 + torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(3))
    statistics = torch.stack([torch.full_like(means, 37.0), means, torch.full_like(means, 0.37)], dim=2)
    exact = norm_factors(statistics.double(), 4)
    with use_backend(backend):
        assert ((norm_factors(statistics, 4).double() - exact) / exact).abs().max() < 3e-7


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e19, 1e30])
def test_squares_beyond_float32_give_no_factor(backend, size):
    """Not 0, which would leave the bias."""
    x = drawn(2, 8, 9, 9).sign() * size
    x[1, 4:] /= size
    with use_backend(backend):
        factors, norms = norm_factors(channel_statistics(x), 2), pixel_norms(x)
    assert factors[0].isnan().all() and factors[1, :, :4].isnan().all() and factors[1, :, 4:].isfinite().all()
    assert norms.isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_has_empty_results(backend):
    x = drawn(0, 8, 4, 4)
    with use_backend(backend):
        assert norm_factors(channel_statistics(x), 2).shape == (0, 2, 8)
        assert pixel_norms(x).shape == (0, 4, 4)


def test_errors_name_what_is_wrong():
    x = drawn(2, 8, 4, 4)
    with pytest.raises(TypeError, match=r"channel_statistics: x must be float32 \(B, C, H, W\)"):
        channel_statistics(x[0])
    with pytest.raises(ValueError, match="groups must divide the 8 channels, got 3"):
        norm_factors(channel_statistics(x), 3)
    with pytest.raises(ValueError, match=r"scale must be floating \(2, 8\)"):
        norm_factors(channel_statistics(x), 2, scale=torch.ones(8))
    with pytest.raises(TypeError, match=r"statistics must be float32 \(B, P, 3, C\)"):
        norm_factors(x, 2)
    with pytest.raises(ValueError, match="x2 must be"):
        pixel_norms(x, drawn(2, 8, 4, 5))
    with pytest.raises(ValueError, match="eps must be at least 0"):
        norm_factors(channel_statistics(x), 2, eps=-1.0)
