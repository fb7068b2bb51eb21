"""Sampling on a GPU: `fastdiff.sample`, 50 DDIM steps, against the pipeline of diffusers at its best settings.

The network is that of google/ddpm-cifar10-32 with seeded random weights, in the dtype that is measured; the state of
`fastdiff.sample` stays in float32. Torch's own settings hold for all, so float32 convolutions may use TF32.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.bench_sampling import SHAPE, STEPS, network, ours, pipeline
from benchmarks.measure import kind


@pytest.mark.parametrize("batch", [1, 16])
def bench_sampling_gpu(duel, place, dtype, batch):
    """Everybody in CUDA graphs; what is compiled is compiled before the clock runs."""
    if torch.device(place).type == "cpu":
        pytest.skip("measured on GPUs only: --device cuda")
    noise = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(1))

    def net(layout: torch.memory_format = torch.channels_last) -> Any:
        return network().to(place, dtype).to(memory_format=layout)

    compiled = net()
    compiled.forward = torch.compile(compiled.forward, dynamic=False, mode="reduce-overhead")
    candidates = {
        "fastdiff": ours(net(), noise, compile=True),
        "fastdiff without inductor": ours(net(), noise, inductor=False, compile=True),
        "fastdiff.sample, eager network in a graph": ours(net(), noise, engine=False, compile=True),
        "diffusers eager": pipeline(net(torch.contiguous_format), noise),
        "diffusers channels_last": pipeline(net(), noise),
        "diffusers torch.compile(reduce-overhead)": pipeline(compiled, noise),
    }

    def check() -> None:
        """TF32 and half precision round differently; an image that is another one is far away."""
        wanted = candidates["diffusers eager"]().float().cpu()
        allowed = 5e-2 if dtype == torch.float32 else 0.5
        for name, candidate in candidates.items():
            got = candidate().float().cpu()
            far, usual = float((got - wanted).abs().max()), float((got - wanted).abs().mean())
            assert far <= allowed and usual <= allowed / 10, (
                f"{name}: images differ by {far:.2g}, {usual:.2g}"
            )

    duel(
        f"sample, ddpm-cifar10, batch {batch}, {STEPS} DDIM steps{kind(dtype)}",
        candidates,
        check=check,
        rounds=5,
    )
