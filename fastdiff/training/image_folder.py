"""A folder of pictures; where it has subfolders, each is a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def read_image_folder(
    folder: Path, size: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, tuple[str, ...]]:
    """Images (N, C, H, W) uint8 in order of their names, labels (N,) or None, and the names of the classes.

    Grey pictures give C = 1 when all are grey, else all are read as RGB.

    Args:
        folder: pictures, or one subfolder of pictures per class.
        size: the shorter side is scaled to it and the centre cut out; None: all must have one size already.

    Raises:
        ValueError: naming the file, when one cannot be read, or sizes differ and no `size` is given.
    """
    classes = sorted(d for d in folder.iterdir() if d.is_dir() and _pictures(d))
    groups = [_pictures(d) for d in classes] if classes else [_pictures(folder)]
    files = [path for group in groups for path in group]
    if not files:
        raise ValueError(
            f"read_dataset: {folder} must hold IDX files, CIFAR-10 batches or pictures, got none"
        )
    images = _stack(files, [_open(path, size) for path in files])
    if not classes:
        return images, None, ()
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return images, labels, tuple(d.name for d in classes)


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _open(path: Path, size: int | None) -> Any:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"pixels have more than 8 bits (mode {opened.mode})")
            picture = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"read_dataset: {path} must be a readable picture, got: {error}") from error
    return picture if size is None else ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)


def _stack(files: list[Path], pictures: list[Any]) -> NDArray[np.uint8]:
    mode = "L" if all(p.mode == "L" for p in pictures) else "RGB"
    for path, picture in zip(files, pictures):
        if picture.size != pictures[0].size:
            wanted = "{} x {}".format(*pictures[0].size)
            raise ValueError(
                f"read_dataset: {path} must have the size of the first picture ({wanted}) or a size must be given, "
                f"got {picture.size[0]} x {picture.size[1]}"
            )
    arrays = np.stack([np.asarray(p.convert(mode), np.uint8) for p in pictures])
    return arrays[:, None] if mode == "L" else np.moveaxis(arrays, -1, 1)
