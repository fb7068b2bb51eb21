"""Images to files: grids, strips, animations, one PNG per image, and .npz. Pillow is imported where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastdiff.cli.files import replacing

WHITE = 255


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] to (N, H, W, C) in 0..255, rounded to nearest; values outside are clipped."""
    if images.ndim != 4:
        raise ValueError(f"to_uint8: images must have shape (N, C, H, W), got {tuple(images.shape)}")
    levels = ((images.detach().float().cpu() + 1.0) * 127.5).round().clamp(0, 255)
    return levels.byte().permute(0, 2, 3, 1).contiguous().numpy()


def enlarged(images: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel of (N, H, W, C) repeated `factor` times in both directions."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def fitting_factor(size: int, wanted: int = 64) -> int:
    """How many times an image of `size` pixels is enlarged in a picture for people: at least `wanted` pixels."""
    return max(1, -(-wanted // size))


def for_people(images: np.ndarray, scale: int | None) -> np.ndarray:
    """(N, H, W, C) enlarged `scale` times, by default to at least 64 pixels."""
    return enlarged(images, scale or fitting_factor(min(images.shape[1:3])))


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """Images (N, H, W, C) row by row in one picture (rows*(H+gap)-gap, columns*(W+gap)-gap, C) on white."""
    if len(images) < 1 or columns < 1:
        raise ValueError(f"grid: images and columns must be at least 1, got {len(images)} and {columns}")
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), WHITE, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def grid_columns(count: int, classes: int) -> int:
    """Columns of a grid: one per class when the classes are cycled through, else nearly square."""
    return classes if 1 < classes <= 20 else max(1, int(np.ceil(np.sqrt(count))))


def picture(image: np.ndarray) -> Any:
    """A PIL image of (H, W, C) with C of 1 (grey), 3 (RGB) or 4 (RGBA)."""
    from PIL import Image

    channels = image.shape[2]
    if channels not in (1, 3, 4):
        raise ValueError(f"picture: images must have 1, 3 or 4 channels, got {channels}; write .npz instead")
    return Image.fromarray(image[:, :, 0] if channels == 1 else image)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write (H, W, C) as PNG."""
    drawn = picture(image)
    with replacing(path) as temporary:
        drawn.save(temporary, format="PNG")


def save_gif(path: Path, frames: Sequence[np.ndarray], frame_ms: int = 60, last_ms: int = 1500) -> None:
    """Write pictures of one size as an endless GIF that rests on the last frame."""
    first, *rest = [picture(frame) for frame in frames]
    durations = [frame_ms] * len(rest) + [last_ms]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)


def save_npz(path: Path, images: np.ndarray, seeds: Sequence[int], labels: Sequence[int] | None) -> None:
    """Write `arr_0` (N, H, W, C) uint8, the name evaluation scripts read, with `seeds` uint64 and `labels` int64."""
    arrays: dict[str, Any] = {"arr_0": images, "seeds": np.array(seeds, dtype=np.uint64)}
    if labels is not None:
        arrays["labels"] = np.array(labels, dtype=np.int64)
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def seed_file(folder: Path, seed: int) -> Path:
    """The PNG of one seed: 000017.png."""
    return folder / f"{seed:06d}.png"
