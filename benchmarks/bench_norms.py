"""The fused normalisations against plain torch, eager and compiled, forward alone and with the gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import FAR_GROUP_NORM, GROUP_NORMS, RMS_NORMS
from benchmarks.measure import kind
from fastdiff.ops import group_norm_silu, rms_norm_silu

FORMATS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
Norm = Callable[..., Tensor]


def rivals(ours: Norm, eager: Norm) -> dict[str, Norm]:
    torch.compiler.reset()
    return {"fastdiff": ours, "torch eager": eager, "torch.compile": torch.compile(eager, dynamic=False)}


def forward(norms: dict[str, Norm], inputs: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
    def call(norm: Norm) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: norm(*inputs))

    return {name: call(norm) for name, norm in norms.items()} | {"copy": lambda: inputs[0].clone()}


def both_ways(norms: dict[str, Norm], inputs: list[Tensor]) -> dict[str, Callable[[], object]]:
    leaves = [value.detach().requires_grad_() for value in inputs]
    gradient = torch.randn_like(inputs[0])

    def call(norm: Norm) -> Callable[[], object]:
        return lambda: torch.autograd.grad(norm(*leaves), leaves, gradient)

    return {name: call(norm) for name, norm in norms.items()}


WAYS = {"forward": forward, "forward + backward": both_ways}
BARS = {  # ratio over torch eager, ratio over torch.compile
    ("group", "forward"): (2.5, 2.5),
    ("rms", "forward"): (5.0, 2.5),
    ("group", "forward + backward"): (1.5, None),
    ("rms", "forward + backward"): (1.5, None),
}


def bars(norm: str, way: str, order: str, place: str) -> dict[str, float]:
    """The ratios aimed at, by rival; they are set for channels last on a CPU."""
    eager, compiled = BARS[norm, way] if (order, place) == ("NHWC", "cpu") else (None, None)
    wanted = {"torch eager": eager, "torch.compile": compiled}
    if (norm, way, order, place) == ("group", "forward", "NHWC", "cpu"):
        wanted["copy"] = 0.6
    return {rival: bar for rival, bar in wanted.items() if bar is not None}


def agree(candidates: dict[str, Callable[[], object]], dtype: torch.dtype) -> Callable[[], None]:
    """Half precision rounds between the calls of the rival, and gradients of weights sum many such errors."""
    near = 1e-3 if dtype == torch.float32 else 5e-2

    def check() -> None:
        ours, theirs = candidates["fastdiff"](), candidates["torch eager"]()
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for found, wanted in pairs:
            scale = 1.0 if dtype == torch.float32 else max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(found, wanted, rtol=near, atol=near * scale)

    return check


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("name", GROUP_NORMS)
def bench_group_norm_silu(duel, place, dtype, name, order, way):
    shape, groups = GROUP_NORMS[name]
    options = {"device": place, "dtype": dtype}
    x = torch.randn(shape, **options).contiguous(memory_format=FORMATS[order])
    weight, bias = torch.randn(shape[1], **options), torch.randn(shape[1], **options)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return group_norm_silu(x, groups, weight, bias)

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.silu(functional.group_norm(x, groups, weight, bias, 1e-5))

    runs = WAYS[way](rivals(ours, eager), [x, weight, bias])
    facts = {"shape": shape, "bar": bars("group", way, order, place)}
    title = f"group_norm_silu {way}, {name} {order}{kind(dtype)}"
    duel(title, runs, check=agree(runs, dtype), rounds=30, **facts)


def bench_group_norm_silu_far(duel, place, dtype):
    """Beyond the caches: 3 passes of memory (read, read, write) where a copy makes 2; the aim is 80 % of its rate."""
    shape, groups = FAR_GROUP_NORM
    options, eps = {"device": place, "dtype": dtype}, 1e-5
    x = torch.randn(shape, **options).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(shape[1], **options), torch.randn(shape[1], **options)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return group_norm_silu(x, groups, weight, bias)

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.silu(functional.group_norm(x, groups, weight, bias, eps))

    runs = forward(rivals(ours, eager), [x, weight, bias])
    size = x.numel() * x.element_size() // 1_000_000
    duel(
        f"group_norm_silu forward, {size} MB NHWC{kind(dtype)}",
        runs,
        check=agree(runs, dtype),
        rounds=7,
        shape=shape,
        bar={"copy": 0.53} if place == "cpu" else {},
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("name", RMS_NORMS)
def bench_rms_norm_silu(duel, place, dtype, name, order, way):
    shape = RMS_NORMS[name]
    options = {"device": place, "dtype": dtype}
    x = torch.randn(shape, **options).contiguous(memory_format=FORMATS[order])
    weight, scale, shift = (torch.randn(size, **options) for size in (shape[1], shape[:2], shape[:2]))
    root = shape[1] ** 0.5

    def ours(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return rms_norm_silu(x, weight, scale=scale, shift=shift)

    def eager(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x = functional.normalize(x, dim=1) * weight[:, None, None] * root
        return functional.silu(x * (scale[:, :, None, None] + 1) + shift[:, :, None, None])

    runs = WAYS[way](rivals(ours, eager), [x, weight, scale, shift])
    facts = {"shape": shape, "bar": bars("rms", way, order, place)}
    title = f"rms_norm_silu {way}, {name} {order}{kind(dtype)}"
    duel(title, runs, check=agree(runs, dtype), rounds=30, **facts)
