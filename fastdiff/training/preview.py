"""Grids of samples while training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdiff.model import Model


def write_preview(model: Model, path: Path, *, num: int = 40, steps: int = 20, seed: int = 0) -> None:
    """Sample `num` images (each class in turn) with DDIM and write them as one PNG, ten in a row."""
    from fastdiff.sampling import sample

    labels = torch.arange(num) % model.num_classes if model.num_classes else None
    images = sample(model, steps, num=num, labels=labels, seed=seed)
    write_images(images, path)


def write_images(images: Tensor, path: Path, *, columns: int = 10) -> None:
    """Write images (N, C, H, W) in [-1, 1] in rows as one PNG."""
    _write(grid(images, columns), path)


def write_pairs(images: Tensor, reconstructions: Tensor, path: Path, *, columns: int = 10) -> None:
    """Write rows of images (N, C, H, W) in [-1, 1], each row with its reconstructions below it, as one PNG."""
    rows = zip(images.split(columns), reconstructions.split(columns))
    _write(np.concatenate([grid(part, columns) for pair in rows for part in pair]), path)


def _write(picture: np.ndarray, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    Image.fromarray(picture).save(partial, format="PNG")
    partial.replace(path)


def grid(images: Tensor, columns: int) -> np.ndarray:
    """(N, C, H, W) images in [-1, 1] as one (rows * H, columns * W[, 3]) uint8 picture."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((rows * columns, channels, height, width), -1.0)
    canvas[:count] = images.detach().float().cpu()
    canvas = canvas.reshape(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = ((canvas + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture = pixels.reshape(rows * height, columns * width, channels).numpy()
    return picture[..., 0] if channels == 1 else picture[..., :3]
