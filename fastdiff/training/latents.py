"""What priors over the latents of a VQ-VAE are trained on: the trained VQ-VAE and its latents of the images."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from fastdiff import systems
from fastdiff.systems.vqvae import VQVAE
from fastdiff.training.datasets import Dataset


def load_vqvae(name: str, data: Dataset) -> VQVAE:
    """The VQ-VAE `name`, for images like those of `data`.

    Raises:
        ValueError: when it is another kind of system, or made for other images.
    """
    found = systems.load(name)
    if not isinstance(found, VQVAE):
        raise ValueError(f"train: vqvae must be a VQVAE, got a {type(found).__name__} in {name}")
    channels, height, width = data.images.shape[1:]
    wanted, factor = found.config["channels"], found.reduction
    if channels != wanted or height != width or height % factor:
        raise ValueError(
            f"train: data must be square images of {wanted} channels and a multiple of {factor} pixels "
            f"for the VQ-VAE {name}, got {tuple(data.images.shape[1:])}"
        )
    return found


def weights_digest(net: nn.Module) -> str:
    """A checksum of the names, shapes and values of all weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def latent_moments(vqvae: VQVAE, data: Dataset, count: int = 4096) -> tuple[list[float], float]:
    """Mean of each latent channel, and the variance around these means over all channels, of the first images.

    Args:
        vqvae: in evaluation mode.
        data: the images.
        count: how many of them.
    """
    parts = data.images[:count].split(256)
    latents = torch.cat([vqvae.encode(images(part)) for part in parts]).double()
    means = latents.mean((0, 2, 3))
    return [round(float(m), 6) for m in means], float((latents - means[:, None, None]).square().mean())


def images(part: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return part.float().div(127.5).sub(1.0)
