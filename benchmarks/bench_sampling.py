"""The whole of sampling: `fastdiff.sample`, 50 DDIM steps, against the pipeline of diffusers at its best settings,
and with the engine against the same loop in eager torch, channels last, on the shipped model and the shipped bridge.

The network is that of google/ddpm-cifar10-32 with seeded random weights. All start from the same noise, and a
candidate whose images differ from those of the pipeline by more than 1e-3 is not timed. torch.compile is made ready
before the clock runs. Everything is in one process, so no thread pool but torch's own spins beside another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdiff
from benchmarks.bench_training import with_plain_norms
from benchmarks.clocks import Candidate

STEPS, BATCH = 50, 4
SHAPE = (3, 32, 32)
CONFIG: dict[str, Any] = {
    **{"sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2},
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    **{"attention_head_dim": None, "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False},
    "freq_shift": 1,
}


def network() -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**CONFIG).eval()


def pipeline(net: Any, noise: Tensor) -> Candidate:
    """diffusers' DDIMPipeline from given noise, which it draws by a function that we answer, where the network is.

    The noise of a step follows from the clipped image, as in `fastdiff.solvers`.
    """
    from diffusers import DDIMPipeline, DDIMScheduler
    from diffusers.pipelines.ddim import pipeline_ddim

    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=True, timestep_spacing="leading")
    pipe = DDIMPipeline(net, scheduler)
    pipe.set_progress_bar_config(disable=True)
    given, batch = noise.to(net.device, net.dtype), len(noise)

    def run() -> Tensor:
        drawing, pipeline_ddim.randn_tensor = pipeline_ddim.randn_tensor, lambda *_, **__: given
        try:
            images = pipe(
                batch_size=batch, num_inference_steps=STEPS, output_type="np", use_clipped_model_output=True
            ).images
        finally:
            pipeline_ddim.randn_tensor = drawing
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    return run


def ours(net: Any, noise: Tensor, engine: bool = True, **options: Any) -> Candidate:
    """`fastdiff.sample` from given noise, with the engine or with the network as it is, where that is."""

    class Tensors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x.to(self.net.dtype), t).sample

    inductor = options.pop("inductor", True)
    module: nn.Module = fastdiff.compile(Tensors(), inductor=inductor) if engine else Tensors()
    options |= {"shape": SHAPE, "schedule": "linear", "prediction": "eps", "spacing": "leading"}
    return lambda: fastdiff.sample(module, STEPS, num=len(noise), x_init=noise, device=net.device, **options)


class ChannelsLast(nn.Module):
    """The network with its weights and its input in channels_last."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, **more: Any) -> Tensor:
        return self.net(x.contiguous(memory_format=torch.channels_last), t, **more)


def agree(candidates: Mapping[str, Candidate], reference: str) -> None:
    """Raise unless all draw what the reference draws."""
    wanted = candidates[reference]()
    for name, candidate in candidates.items():
        if name != reference:
            far = float((candidate() - wanted).abs().max())  # type: ignore[operator]
            assert far <= 1e-3, f"{name}: images differ by {far:.2g}"


def bench_fashion(duel):
    num = 64
    models = [fastdiff.load("fashion") for _ in range(4)]
    model = models[0]
    options: dict[str, Any] = {
        "shape": model.shape,
        "schedule": model.schedule,
        "prediction": model.prediction,
    }
    options |= {"num": num, "labels": [k % 10 for k in range(num)]}

    def sampler(net: nn.Module, compile: bool) -> Candidate:
        net = net.eval()
        return lambda: fastdiff.sample(net, STEPS, compile=compile, **options)

    by_inductor = ChannelsLast(with_plain_norms(models[3].net))
    by_inductor.forward = torch.compile(by_inductor.forward, dynamic=False)  # type: ignore[method-assign]
    candidates = {
        "fastdiff": sampler(model.net, True),
        "eager channels_last": sampler(ChannelsLast(with_plain_norms(models[1].net)), False),
        "eager channels_last, our norms": sampler(ChannelsLast(models[2].net), False),
        "torch.compile": sampler(by_inductor, False),
    }

    def check() -> None:
        agree(candidates, "eager channels_last")

    bar = {"eager channels_last": 2.0}
    duel(f"sample, fashion, batch {num}, {STEPS} DDIM steps", candidates, check=check, rounds=3, bar=bar)


def bench_bridge(duel):
    """Latents of the shipped bridge, decoded: the check looks at latents, since a code near two rows may flip."""
    num = 64
    systems = [fastdiff.load("fashion-ou-bridge").net for _ in range(3)]
    plain = systems[1].bridge
    plain.denoising_model = ChannelsLast(with_plain_norms(plain.denoising_model))
    names = ("fastdiff", "eager channels_last", "eager, our norms")
    modes = {name: (system, name == "fastdiff") for name, system in zip(names, systems)}

    def draw(net: nn.Module, compile: bool, steps: int = STEPS) -> Tensor:
        return fastdiff.sample(net, steps, num=num, solver="ddpm", compile=compile)

    def check() -> None:
        latents: dict[str, Candidate] = {
            name: partial(draw, system.bridge, compile) for name, (system, compile) in modes.items()
        }
        agree(latents, "eager channels_last")

    candidates: dict[str, Candidate] = {name: partial(draw, *mode) for name, mode in modes.items()}
    duel(f"sample, fashion-ou-bridge, batch {num}, {STEPS} ddpm steps", candidates, check=check, rounds=3)


def bench_sampling(duel):
    noise = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(1))
    candidates = {
        "fastdiff": ours(network(), noise),
        "diffusers eager": pipeline(network(), noise),
        "diffusers channels_last": pipeline(network().to(memory_format=torch.channels_last), noise),
    }
    compiled = network().to(memory_format=torch.channels_last)
    compiled.forward = torch.compile(compiled.forward, dynamic=False)
    candidates["diffusers torch.compile"] = pipeline(compiled, noise)

    def check() -> None:
        agree(candidates, "diffusers eager")

    duel(
        f"sample, ddpm-cifar10, batch {BATCH}, {STEPS} DDIM steps",
        candidates,
        check=check,
        rounds=3,
        bar=dict.fromkeys(list(candidates)[1:], 2.0),
    )
