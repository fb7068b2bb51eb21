"""Models whose states are latents of an autoencoder, decoded to images at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Space(Protocol):
    """What such a model must provide.

    Attributes:
        image_shape: (C, H, W) of an image.
        latent_shape: (D, h, w) of a state.
    """

    image_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in the data's range to states (B, D, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """States (B, D, h, w) to images (B, C, H, W) in the data's range."""

    def latent_mask(self, mask: Tensor) -> Tensor:
        """A mask (..., H, W) of pixels to one of latents, (..., h, w): known where every pixel behind it is."""


@dataclass(frozen=True)
class PixelInterface:
    """Converts what the caller gives in pixels to states, and states to images.

    Args:
        space: the space, or None if states are images.
        together: how many images go through the autoencoder at once; with 1, no image depends on another.
    """

    space: Space | None
    together: int = 256

    @torch.no_grad()
    def image(self, x_init: Tensor | None, device: torch.device) -> Tensor | None:
        """Images as states, computed on `device`; a tensor of the states' shape, or not floating, is returned as it is.

        Raises:
            ValueError: for a tensor of neither shape.
        """
        space = self.space
        if space is None or not isinstance(x_init, Tensor) or not x_init.is_floating_point():
            return x_init
        shape = tuple(x_init.shape[-3:])
        if shape == space.latent_shape:
            return x_init
        if shape != space.image_shape:
            raise ValueError(
                f"sample: x_init must be images {space.image_shape} or latents {space.latent_shape}, "
                f"got {tuple(x_init.shape)}"
            )
        images = x_init.reshape(-1, *shape).to(device, torch.float32)
        states = torch.cat([space.encode(part) for part in images.split(self.together)])
        return states.reshape(*x_init.shape[:-3], *space.latent_shape)

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """A mask of pixels as one of states; a mask of the states' height and width is returned as it is.

        Raises:
            ValueError: for a mask of neither size.
        """
        space = self.space
        if space is None or not isinstance(mask, Tensor):
            return mask
        size = tuple(mask.shape[-2:])
        if size == space.latent_shape[1:]:
            return mask
        if size != space.image_shape[1:]:
            raise ValueError(
                f"sample: mask must be {space.image_shape[1:]} pixels or {space.latent_shape[1:]} latents, "
                f"got {tuple(mask.shape)}"
            )
        pixels = mask.amin(-3, keepdim=True) if mask.ndim >= 3 else mask
        return space.latent_mask(pixels)

    @torch.no_grad()
    def images_of(self, states: Tensor) -> Tensor:
        """States (..., D, h, w) as images (..., C, H, W)."""
        if self.space is None:
            return states
        flat = states.reshape(-1, *self.space.latent_shape).float()
        images = torch.cat([self.space.decode(part) for part in flat.split(self.together)])
        return images.reshape(*states.shape[:-3], *self.space.image_shape)
