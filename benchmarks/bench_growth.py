"""How cost grows with batch, resolution and steps: the engine against eager torch in channels last."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from benchmarks.clocks import Candidate
from benchmarks.networks import ddpm_cifar10
from fastdiff.ops import use_backend

BATCHES = (1, 2, 4, 8, 16)
SIZES = (16, 48, 64)  # 32 is among the batches
STEPS = (5, 10, 20, 50)


def calls(batch: int, size: int) -> dict[str, Candidate]:
    """The 35.7 M network of ddpm-cifar10 at any size."""
    torch.manual_seed(0)
    net = ddpm_cifar10().eval()
    compiled, plain = fastdiff.compile(net), net.to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    t = torch.full((batch,), 500)

    def run(network: torch.nn.Module) -> Candidate:
        return torch.no_grad()(lambda: network(x, t).sample)

    return {"fastdiff": run(compiled), "eager channels_last": run(plain)}


def agreeing(candidates: dict[str, Candidate]):
    def check() -> None:
        results = [candidate() for candidate in candidates.values()]
        assert (results[0] - results[1]).abs().max() <= 1e-4 * results[1].abs().max()

    return check


@pytest.mark.parametrize("batch", BATCHES)
def bench_batch(duel, batch):
    candidates = calls(batch, 32)
    facts = {"axis": "batch", "value": batch}
    duel(f"ddpm-cifar10 35.7 M, {batch}x3x32x32", candidates, check=agreeing(candidates), rounds=5, **facts)


@pytest.mark.parametrize("size", SIZES)
def bench_size(duel, size):
    candidates = calls(2, size)
    facts = {"axis": "size", "value": size}
    duel(f"ddpm-cifar10 35.7 M, 2x3x{size}x{size}", candidates, check=agreeing(candidates), rounds=5, **facts)


@pytest.mark.parametrize("steps", STEPS)
def bench_steps(duel, steps):
    model = fastdiff.load("fashion")
    labels = [k % 10 for k in range(16)]

    def ours() -> torch.Tensor:
        return fastdiff.sample(model, steps, num=16, labels=labels, compile=True)

    def plain() -> torch.Tensor:
        with use_backend("torch"):
            return fastdiff.sample(model, steps, num=16, labels=labels, compile=False)

    def check() -> None:
        torch.testing.assert_close(ours(), plain(), rtol=0, atol=1e-3)

    candidates = {"fastdiff": ours, 'use_backend("torch")': plain}
    duel(f"fashion, 16 images, {steps} steps", candidates, check=check, rounds=3, axis="steps", value=steps)
