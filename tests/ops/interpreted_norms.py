"""Run by test_triton.py in a process of its own: the Triton normalisations in triton's interpreter on the CPU."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import triton
import triton.language as tl
from fastdiff.kernels import group_norm_silu as kernels
from fastdiff.kernels.group_plans import Cut, Plan, block_of_channels, part_of_pixels, plan_of
from fastdiff.kernels.maps import Map, layout_of, place
from hypothesis import example, given, settings

from fastdiff.ops import group_norm_silu, rms_norm_silu, use_backend

from .norm_cases import USUAL as FULL
from .norm_cases import cases, compare, rms

USUAL = FULL | {"batch": 1, "groups": 4}  # a program takes milliseconds here
#: Few programs: there is one for every group of a sample at least.
small = cases.map(lambda case: case | {"batch": min(case["batch"], 2), "groups": min(case["groups"], 8)})


@settings(max_examples=12, deadline=None)
@given(case=small)
@example(case=USUAL | {"values": "far from zero", "sizes": [7, 9]})
@example(case=USUAL | {"batch": 3, "groups": 32, "width": 3, "sizes": [5]})
@example(
    case=USUAL
    | {"values": "far from zero", "layout": "contiguous", "sizes": [40, 40], "width": 30, "groups": 2}
)
@example(case=USUAL | {"values": "far from zero", "width": 10, "sizes": [40, 40]})
@example(case=USUAL | {"values": "far from zero", "width": 4, "sizes": [65, 64]})
@example(case=USUAL | {"groups": 8, "width": 6, "dtype": torch.bfloat16})
@example(
    case=USUAL
    | {"values": "one loud pixel", "layout": "contiguous", "activate": False}
    | {"groups": 1, "width": 1, "sizes": [19, 19, 19]}
)
@example(case=USUAL | {"values": "large", "dtype": torch.float16, "width": 10})
@example(case=USUAL | {"values": "equal"})
@example(case=USUAL | {"sizes": [1, 1]})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"batch": 1, "width": 1, "sizes": []})
@example(case=USUAL | {"groups": 1, "width": 320, "sizes": [19, 19]})
def test_group_norm_is_as_exact_as_torch(case):
    together = case["width"] * math.prod(case["sizes"])
    op = partial(group_norm_silu, groups=case["groups"], activate=case["activate"])
    compare("triton", op, case, together)


@settings(max_examples=12, deadline=None)
@given(case=cases)
@example(case=USUAL | {"values": "far from zero", "sizes": [7, 9]})
@example(case=USUAL | {"values": "large", "dtype": torch.float16, "width": 10})
@example(case=USUAL | {"values": "zero"})
@example(case=USUAL | {"sizes": [1, 1]})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"batch": 1, "sizes": [40, 40], "layout": "contiguous"})
def test_rms_norm_is_as_exact_as_torch(case):
    compare("triton", partial(rms, activate=case["activate"]), case, case["groups"] * case["width"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_sample_depends_on_itself_alone(layout):
    x = torch.randn(2, 40, 15, 17).contiguous(memory_format=layout)
    with use_backend("triton"):
        for op in (partial(group_norm_silu, groups=2), rms_norm_silu):
            assert torch.equal(op(x)[1:], op(x[1:]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_are_those_of_the_group(layout):
    x = (1000 + torch.randn(2, 12, 30, 40)).contiguous(memory_format=layout)
    for groups in (4, 1):
        statistics, out = torch.full((2, groups, 3), float("nan")), torch.empty_like(x)
        torch.ops.fastdiff.group_norm_silu_triton(out, statistics, x, *[None] * 4, groups, 1e-5, True)
        exact = x.double().reshape(2, groups, -1)
        assert ((statistics[..., 0].double() + statistics[..., 1]) - exact.mean(2)).abs().max() < 1e-5
        deviation = (exact.var(2, unbiased=False) + 1e-5).rsqrt()
        assert (statistics[..., 2] / deviation - 1).abs().max() < 1e-5


def test_parts_that_begin_apart_keep_their_digits(monkeypatch):
    """The mean of a part's first tile is its pivot: squares around a pivot far away would lose theirs."""
    tiles, inside = 32, torch.randn(1, 1, 2, 32, 2048, dtype=torch.float64)
    x = 1e-2 * inside + 1000
    x[:, :, :, 0] -= 1000
    x = x.reshape(1, 1, 2 * tiles, 2048).float()
    plan = Plan(False, 1, 1, 2048, 1, False, 1, 2048 * tiles, 2, 4)
    monkeypatch.setattr(kernels, "plan_for", lambda *_: plan)
    statistics, out = torch.full((1, 1, 3), float("nan")), torch.empty_like(x)
    torch.ops.fastdiff.group_norm_silu_triton(out, statistics, x, *[None] * 4, 1, 1e-5, False)
    deviation = (x.double().var(unbiased=False) + 1e-5).rsqrt()
    assert abs(statistics[0, 0, 2] / deviation - 1) < 2e-7


@triton.jit
def places_kernel(out, m, cut, WIDE: tl.constexpr):
    sample, _, c, _, part = block_of_channels(cut, WIDE, 4)
    _, _, lane, p = part_of_pixels(cut, part, WIDE, 2)
    tl.store(out + tl.arange(0, 4)[:, None] * 2 + lane[None, :], place(m, sample, c, p))


def test_places_of_wide_samples_do_not_wrap():
    """A sample of 2**31 elements and more is never a slab, whose places have 32 bits; others have 64."""
    wide = layout_of(torch.empty(1, 2**16, 2**15, 1, device="meta"))
    assert wide.wide and not plan_of(wide, 2**16, 4, 32768, 32).slab
    out = torch.zeros(4, 2, dtype=torch.int64)
    places_kernel[(1,)](out, Map(None, 2**32, 2**30, 1), Cut(4, 2**30, 1, 4, 1, 1, 1, 2**30), WIDE=True)
    assert out.tolist() == [[c * 2**30, c * 2**30 + 1] for c in range(4)]


@pytest.mark.parametrize(
    ("channels", "groups", "size"), [(320, 32, 2), (640, 32, 2), (960, 32, 4), (128, 32, 2)]
)
def test_no_lane_is_padding_where_channels_are_last(channels, groups, size):
    layout = layout_of(
        torch.empty(1, channels, 64, 64, device="meta").contiguous(memory_format=torch.channels_last)
    )
    plan = plan_of(layout, groups, size, 32768, 32)
    assert plan.channels == plan.block and channels % plan.block == 0 and plan.block * size >= 64


def test_not_a_number_and_squares_beyond_float32_stay_in_their_group():
    for sizes in ([3, 3], [65, 64]):  # one launch, two launches
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(1, 24, *sizes).contiguous(memory_format=layout)
            x[0, 7, 0, 0], x[0, 12:18] = float("nan"), x[0, 12:18].sign() * 1e19
            with use_backend("triton"):
                bad = group_norm_silu(x, 4).isnan().reshape(4, -1)
            assert bad[1:3].all() and not bad[[0, 3]].any()
    x[0, :, :1, 1], x[0, :, 1:] = x[0, :, :1, 1].sign() * 1e30, 1.0
    with use_backend("triton"):
        lost = rms_norm_silu(x[:, :, :2, :3]).isnan()
    assert lost[0, :, 0, :2].all() and not lost[0, :, 1].any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_opcheck(layout):
    x = torch.randn(2, 8, 4, 5).contiguous(memory_format=layout)
    w, b, scale, shift = torch.randn(8), torch.randn(8), torch.randn(2, 8), torch.randn(2, 8)
    ops, out, statistics = torch.ops.fastdiff, torch.empty_like(x), torch.rand(2, 4, 3)
    gradient, sums = torch.randn(x.shape).contiguous(memory_format=layout), torch.empty(2, 2, 8)
    factors = (w, b, scale, shift)
    torch.library.opcheck(ops.group_norm_silu_triton.default, (out, statistics, x, *factors, 4, 1e-5, True))
    backward = (out, sums, gradient, statistics, x, *factors, 4, True)
    torch.library.opcheck(ops.group_norm_silu_backward_triton.default, backward)
    torch.library.opcheck(ops.rms_norm_silu_triton.default, (out, x, w, scale, shift, 1e-12, True))
    backward = (out, torch.empty(2, 1, 2, 8), gradient, x, w, scale, shift, 1e-12, True)
    torch.library.opcheck(ops.rms_norm_silu_backward_triton.default, backward)


def test_compiles_as_one_graph():
    x, w = torch.randn(2, 8, 3, 3, requires_grad=True), torch.randn(8, requires_grad=True)
    for op in (partial(group_norm_silu, groups=2), rms_norm_silu):
        compiled = torch.compile(lambda x, w, op=op: op(x * 2, weight=w), fullgraph=True, backend="aot_eager")
        with use_backend("triton"):
            for ours, plain in zip(
                torch.autograd.grad(compiled(x, w).sum(), (x, w)),
                torch.autograd.grad(op(x * 2, weight=w).sum(), (x, w)),
                strict=True,
            ):
                torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_refusals_are_words():
    with use_backend("triton"), pytest.raises(ValueError, match="x is torch.float64, it computes in float32"):
        group_norm_silu(torch.zeros(2, 4, 3, 3).double(), 2)
    with use_backend("triton"), pytest.raises(ValueError, match="x has 4096 channels, it takes at most 1024"):
        rms_norm_silu(torch.zeros(1, 4096, 2))
