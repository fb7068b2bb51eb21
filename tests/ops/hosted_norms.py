"""Run by test_cuda.py in a process of its own: the CUDA group norm on the host, in fibers, under sanitizers."""

from __future__ import annotations

import ctypes
import os
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings

from fastdiff.ops import group_norm_silu
from fastdiff.ops.feature_maps import dense

from .conftest import assert_as_exact_as_torch
from .norm_cases import USUAL as FULL
from .norm_cases import cases, make, results

LIBRARY = ctypes.CDLL(os.environ["FASTDIFF_HOSTED"])
LIBRARY.group_norm_silu.restype = ctypes.c_int64
ELEMENTS = (torch.float32, torch.float16, torch.bfloat16)
LONG, POINTER = ctypes.c_int64, ctypes.c_void_p
USUAL = FULL | {"batch": 1, "groups": 4}
LOUD = {"values": "one loud pixel", "groups": 1}
#: Bytes of shared memory, blocks of a cluster, parts at least: a slab in one block, in a cluster, and a split.
PATHS = {"slab": (99 << 10, 1, 1), "cluster": (7 << 10, 8, 1), "split": (0, 1, 3)}


class FeatureMap(ctypes.Structure):
    _fields_ = [
        *((name, LONG) for name in ("batch", "channels", "pixels")),
        ("channels_last", ctypes.c_bool),
        ("element", ctypes.c_int),
    ]


class ChannelFactors(ctypes.Structure):
    _fields_ = [
        *((name, POINTER) for name in ("weight", "bias", "scale", "shift")),
        ("scale_stride", LONG),
        ("shift_stride", LONG),
    ]


class GroupNorm(ctypes.Structure):
    _fields_ = [
        ("map", FeatureMap),
        ("factors", ChannelFactors),
        ("groups", LONG),
        ("eps", ctypes.c_float),
        ("activate", ctypes.c_bool),
        *((name, POINTER) for name in ("x", "out", "statistics", "partials")),
        ("parts", LONG),
        ("slab_channels", ctypes.c_int),
        ("ranks", ctypes.c_int),
    ]


def address(t):
    return None if t is None else t.data_ptr()


def hosted(path, inputs, groups, activate=True, eps=1e-5):
    """(result, statistics, ranks or -parts); what nobody writes stays NaN."""
    x = dense(inputs["x"])
    out = torch.full_like(x, float("nan"))
    statistics = torch.full((x.shape[0], groups, 3), float("nan"))
    pixels = x.shape[2:].numel()
    last = x.dim() > 2 and pixels > 1 and x.stride(1) == 1 and x.shape[1] > 1 and not x.is_contiguous()
    scale, shift = inputs.get("scale"), inputs.get("shift")
    factors = ChannelFactors(
        *(address(inputs.get(name)) for name in ("weight", "bias", "scale", "shift")),
        *(0 if t is None else t.stride(0) for t in (scale, shift)),
    )
    arguments = GroupNorm(
        map=FeatureMap(x.shape[0], x.shape[1], pixels, last or pixels == 1, ELEMENTS.index(x.dtype)),
        factors=factors,
        groups=groups,
        eps=eps,
        activate=activate,
        x=address(x),
        out=address(out),
        statistics=address(statistics),
        parts=1,
        ranks=1,
    )
    limit, ranks, parts = PATHS[path]
    taken = 0
    if x.numel():
        taken = LIBRARY.group_norm_silu(
            ctypes.byref(arguments), 64, LONG(limit), ctypes.c_int(ranks), LONG(parts)
        )
    return out, statistics, taken


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=10, deadline=None)
@given(case=cases)
@example(case=USUAL | {"values": "far from zero", "sizes": [7, 9]})
@example(case=USUAL | {"values": "far from zero", "layout": "contiguous", "sizes": [24, 24], "width": 10})
@example(case=USUAL | {"values": "far from zero", "width": 10, "sizes": [16, 16]})
@example(case=USUAL | {"values": "large", "dtype": torch.float16, "width": 10})
@example(case=USUAL | {"values": "one loud pixel", "dtype": torch.bfloat16, "groups": 8})
@example(case=USUAL | LOUD | {"seed": 1756217999, "width": 10, "sizes": [4, 8], "layout": "contiguous"})
@example(case=USUAL | LOUD | {"seed": 1181470831, "width": 9, "sizes": [3, 10]})
@example(case=USUAL | {"values": "equal"})
@example(case=USUAL | {"sizes": [1, 1]})
@example(case=USUAL | {"batch": 0})
@example(case=USUAL | {"groups": 1, "width": 30, "sizes": [13, 13]})
def test_group_norm_is_as_exact_as_torch(path, case):
    case = case | {"batch": min(case["batch"], 2), "groups": min(case["groups"], 8)}
    inputs, gradient = make(case)
    op = partial(group_norm_silu, groups=case["groups"], activate=case["activate"])
    plain, exact = (results(op, backend, inputs, gradient)[0] for backend in ("torch", "exact"))
    ours, _, _ = hosted(path, inputs, case["groups"], case["activate"])
    assert ours.shape == plain.shape and ours.dtype == plain.dtype
    if not ours.numel():
        return
    assert_as_exact_as_torch(ours, plain, exact)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_path_is_taken_and_keeps_the_statistics(path, layout):
    x = (1000 + torch.randn(2, 12, 24, 20)).contiguous(memory_format=layout)
    _, statistics, taken = hosted(path, {"x": x}, 4)
    assert (taken == 1) if path == "slab" else (taken >= 2) if path == "cluster" else (taken <= -3)
    exact = x.double().reshape(2, 4, -1)
    assert ((statistics[..., 0].double() + statistics[..., 1]) - exact.mean(2)).abs().max() < 1e-5
    deviation = (exact.var(2, unbiased=False) + 1e-5).rsqrt()
    assert (statistics[..., 2] / deviation - 1).abs().max() < 1e-5


@pytest.mark.parametrize("path", PATHS)
def test_not_a_number_and_squares_beyond_float32_stay_in_their_group(path):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, 24, 9, 9).contiguous(memory_format=layout)
        x[0, 7, 0, 0], x[0, 12:18] = float("nan"), x[0, 12:18].sign() * 1e19
        bad = hosted(path, {"x": x}, 4)[0].isnan().reshape(4, -1)
        assert bad[1:3].all() and not bad[[0, 3]].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_as_torch_rounds_them(dtype):
    bits = torch.randint(-(2**31), 2**31, (200_000,), dtype=torch.int64).to(torch.int32)
    values = torch.cat(
        [bits.view(torch.float32), torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).float()]
    )
    values = values[~values.isnan()].contiguous()
    found = torch.empty(values.shape, dtype=torch.int16)
    LIBRARY.narrowed(
        POINTER(address(values)), POINTER(address(found)), LONG(values.numel()), ELEMENTS.index(dtype)
    )
    assert torch.equal(found, values.to(dtype).view(torch.int16))
