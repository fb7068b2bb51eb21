"""Images and masks that `fastdiff sample` starts from: a picture, a folder of pictures, or an .npz it wrote itself."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

#: Masks by name: which part of the image is known, as (rows, columns) slices of quarters.
_KNOWN = {
    "top": (slice(0, 2), slice(0, 4)),
    "bottom": (slice(2, 4), slice(0, 4)),
    "left": (slice(0, 4), slice(0, 2)),
    "right": (slice(0, 4), slice(2, 4)),
    "centre": (slice(1, 3), slice(1, 3)),
}


def read_images(path: Path, shape: tuple[int, ...], option: str) -> Tensor:
    """Images for a model of `shape` (C, H, W): (N, C, H, W) float32 in [-1, 1].

    Args:
        path: A picture, a folder of pictures, or an .npz whose `arr_0` is (N, H, W, C) uint8.
        shape: What each image must be; pictures become grey or RGB as C says, and are not resized.
        option: Name of the command's option, for messages.

    Raises:
        ValueError: for a file that cannot be read, or images of another size.
    """
    import torch

    if not path.exists():
        raise ValueError(
            f"sample: {option} must be a picture, a folder or an .npz file, got {path}: not there"
        )
    pixels = _from_npz(path, option) if path.suffix == ".npz" else _from_pictures(path, shape[0], option)
    if pixels.shape[1:] != (*shape[1:], shape[0]):
        wanted, got = " x ".join(map(str, shape)), " x ".join(map(str, np.roll(pixels.shape[1:], 1)))
        raise ValueError(f"sample: {option} must hold images of {wanted}, got {got} in {path}")
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, 1))).float() / 127.5 - 1


def read_mask(name: str, shape: tuple[int, ...]) -> Tensor:
    """What is known of each image, (N, 1 or C, H, W) of 0 and 1.

    Args:
        name: top, bottom, left, right or centre (that part is known), or pictures as in `read_images` whose bright
            pixels are known.
        shape: Of the images, (C, H, W).

    Raises:
        ValueError: for an unknown name, or a picture that does not fit.
    """
    import torch

    if name not in _KNOWN:
        if not Path(name).exists():
            raise ValueError(f"sample: --mask must be one of {', '.join(_KNOWN)}, or a file, got {name!r}")
        return (read_images(Path(name), (1, *shape[1:]), "--mask") > 0).float()
    rows, columns = _KNOWN[name]
    mask = torch.zeros(1, 1, *shape[1:])
    mask[..., _pixels(rows, shape[1]), _pixels(columns, shape[2])] = 1
    return mask


def _pixels(quarters: slice, size: int) -> slice:
    return slice(quarters.start * size // 4, quarters.stop * size // 4)


def _from_npz(path: Path, option: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as read:
            pixels: np.ndarray = read["arr_0"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"sample: {option} must hold an array arr_0, got {path}: {error}") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) == 0:
        raise ValueError(
            f"sample: {option} must hold (N, H, W, C) uint8, got {pixels.shape} {pixels.dtype} in {path}"
        )
    return pixels


def _from_pictures(path: Path, channels: int, option: str) -> np.ndarray:
    from fastdiff.training.image_folder import SUFFIXES

    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"sample: {option} must hold pictures, got none in {path}")
    pictures = [_picture(file, channels, option) for file in files]
    for file, picture in zip(files, pictures):
        if picture.shape != pictures[0].shape:
            raise ValueError(
                f"sample: {option} must hold pictures of one size, got {pictures[0].shape[1::-1]} and "
                f"{picture.shape[1::-1]} ({file})"
            )
    return np.stack(pictures)


def _picture(path: Path, channels: int, option: str) -> Any:
    from PIL import Image

    if channels not in (1, 3):
        raise ValueError(f"sample: {option} must be an .npz for a model of {channels} channels, got {path}")
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"pixels have more than 8 bits (mode {opened.mode})")
            pixels = np.asarray(opened.convert("L" if channels == 1 else "RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"sample: {option} must be a readable picture, got {path}: {error}") from None
    return pixels[..., None] if channels == 1 else pixels
