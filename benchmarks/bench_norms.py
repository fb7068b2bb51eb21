"""The fused normalisations against plain torch, eager and compiled, forward alone and with the gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import GROUP_NORMS, RMS_NORMS
from fastdiff.ops import group_norm_silu, rms_norm_silu

FORMATS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
Norm = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rivals(ours: Norm, eager: Norm) -> dict[str, Norm]:
    torch.compiler.reset()
    return {"fastdiff": ours, "torch eager": eager, "torch.compile": torch.compile(eager, dynamic=False)}


def forward(norms: dict[str, Norm], inputs: list[Tensor]) -> dict[str, Callable[[], Tensor]]:
    def call(norm: Norm) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return norm(*inputs)

        return run

    return {name: call(norm) for name, norm in norms.items()} | {"copy": lambda: inputs[0].clone()}


def both_ways(norms: dict[str, Norm], inputs: list[Tensor]) -> dict[str, Callable[[], object]]:
    leaves = [value.detach().requires_grad_() for value in inputs]
    gradient = torch.randn_like(inputs[0])

    def call(norm: Norm) -> Callable[[], object]:
        return lambda: torch.autograd.grad(norm(*leaves), leaves, gradient)

    return {name: call(norm) for name, norm in norms.items()}


WAYS = {"forward": forward, "forward + backward": both_ways}


def agree(candidates: dict[str, Callable[[], object]]) -> Callable[[], None]:
    def check() -> None:
        torch.testing.assert_close(
            candidates["fastdiff"](), candidates["torch eager"](), rtol=1e-3, atol=1e-3
        )

    return check


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("name", GROUP_NORMS)
def bench_group_norm_silu(duel, name, order, way):
    shape, groups = GROUP_NORMS[name]
    x = torch.randn(shape).contiguous(memory_format=FORMATS[order])
    weight, bias = torch.randn(shape[1]), torch.randn(shape[1])

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return group_norm_silu(x, groups, weight, bias)

    def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.silu(functional.group_norm(x, groups, weight, bias, 1e-5))

    runs = WAYS[way](rivals(ours, eager), [x, weight, bias])
    duel(f"group_norm_silu {way}, {name} {order}", runs, check=agree(runs), rounds=60, shape=shape)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", FORMATS)
@pytest.mark.parametrize("name", RMS_NORMS)
def bench_rms_norm_silu(duel, name, order, way):
    shape = RMS_NORMS[name]
    x = torch.randn(shape).contiguous(memory_format=FORMATS[order])
    weight, scale, shift = torch.randn(shape[1]), torch.randn(shape[:2]), torch.randn(shape[:2])
    root = shape[1] ** 0.5

    def ours(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return rms_norm_silu(x, weight, scale=scale, shift=shift)

    def eager(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x = functional.normalize(x, dim=1) * weight[:, None, None] * root
        return functional.silu(x * (scale[:, :, None, None] + 1) + shift[:, :, None, None])

    runs = WAYS[way](rivals(ours, eager), [x, weight, scale, shift])
    duel(f"rms_norm_silu {way}, {name} {order}", runs, check=agree(runs), rounds=60, shape=shape)
