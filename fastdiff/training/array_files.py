"""Image sets in .npz and .safetensors files, and the digits that come with scikit-learn."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Names under which images and labels are looked for, in this order.
IMAGE_KEYS = ("images", "x", "x_train", "arr_0")
LABEL_KEYS = ("labels", "y", "y_train", "arr_1")


def read_arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Images (N, C, H, W) uint8 and labels (N,) or None from an .npz or .safetensors file.

    Images may be (N, H, W), (N, H, W, C) with C of 1, 3 or 4, or (N, C, H, W); uint8, or floats in [0, 1].

    Raises:
        ValueError: naming the file, for an unreadable file, missing arrays, or arrays of another shape or kind.
    """
    arrays = _npz(path) if path.suffix == ".npz" else _safetensors(path)
    images = next((arrays[k] for k in IMAGE_KEYS if k in arrays), None)
    if images is None:
        raise ValueError(f"read_dataset: {path} must hold an array named 'images', got {sorted(arrays)}")
    labels = next((arrays[k] for k in LABEL_KEYS if k in arrays), None)
    images = _as_bytes(path, _channels_first(path, images))
    if labels is not None and (labels.shape != (len(images),) or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"read_dataset: labels of {path} must be {len(images)} integers, got {labels.dtype} {labels.shape}"
        )
    return images, None if labels is None else labels.astype(np.int64)


def _npz(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"read_dataset: {path} must be an .npz file of plain arrays, got: {error}"
        ) from error


def _safetensors(path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"read_dataset: {path} must be a safetensors file, got: {error}") from error


def _channels_first(path: Path, images: NDArray) -> NDArray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"read_dataset: images of {path} must be (N, C, H, W), got {images.shape}")
    rank = {1: 2, 3: 2, 4: 1}  # how much a length looks like a number of channels
    last = rank.get(images.shape[-1], 0) > rank.get(images.shape[1], 0)
    return np.moveaxis(images, -1, 1) if last else images


def _as_bytes(path: Path, images: NDArray) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if images.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise ValueError(
            f"read_dataset: images of {path} must be uint8, or floats in [0, 1], got {images.dtype} in [{low}, {high}]"
        )
    return np.rint(images * 255).astype(np.uint8)


def read_digits(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The 8 x 8 digits of scikit-learn: the first 1500 for "train", the other 297 for "test"."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(0, 1500) if split == "train" else slice(1500, None)
    images = np.rint(bunch.images[part] * (255 / 16)).astype(np.uint8)
    return images[:, None], bunch.target[part].astype(np.int64)
