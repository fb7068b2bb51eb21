"""Whole networks that benchmarks run, with random weights where the package ships none."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def ddpm_cifar10() -> nn.Module:
    """The 35.7 M network of google/ddpm-cifar10-32, as diffusers builds it."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def guided_64() -> nn.Module:
    """A UNet in the manner of guided-diffusion at 64x64: scale-shift norms, attention at 16 and 8 pixels."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=64,
        block_out_channels=(64, 128, 192, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=64,
        resnet_time_scale_shift="scale_shift",
    )


def lucidrains_64() -> nn.Module:
    """Unet(dim 64) of denoising-diffusion-pytorch, which imports torchvision for things a network does not need."""
    missing = {}
    try:
        import torchvision  # noqa: F401
    except ImportError:
        missing = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
        missing["torchvision"].transforms = missing["torchvision.transforms"]  # type: ignore[attr-defined]
        missing["torchvision"].utils = types.ModuleType("torchvision.utils")  # type: ignore[attr-defined]
    sys.modules.update(missing)
    try:
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet
    finally:
        for name in missing:
            del sys.modules[name]
    return Unet(dim=64)


#: name -> (builder, size of an image, batches)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[int, ...]]] = {
    "ddpm-cifar10 35.7 M": (ddpm_cifar10, 32, (1, 4, 16)),
    "lucidrains Unet(64) 64x64": (lucidrains_64, 64, (4,)),
    "guided 64x64": (guided_64, 64, (4,)),
}


def built(name: str) -> nn.Module:
    """The network with seeded weights, in eval mode, no weight at zero, its result a tensor."""
    torch.manual_seed(0)
    net = NETWORKS[name][0]()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1 and not p.any():
                p.normal_(0.0, 0.02)
    return net.eval()


def inputs(name: str, batch: int) -> tuple[Tensor, Tensor]:
    """States and times of a call."""
    size = NETWORKS[name][1]
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, size, size, generator=generator), torch.full((batch,), 500)


def tensor_of(result: Any) -> Tensor:
    """What the network predicts."""
    return result if isinstance(result, Tensor) else result.sample
