"""The IDX format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UBYTE = 0x08
_MAX_ELEMENTS = 1 << 34


def read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    Args:
        path: the file; a name that ends in .gz is unpacked.
        dims: the number of dimensions that is expected: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        uint8 array with `dims` dimensions.

    Raises:
        ValueError: naming the file, for a wrong magic number, an element type other than unsigned byte, another
            number of dimensions, or a length that does not agree with the dimensions.
    """
    raw = _content(path)
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise ValueError(f"read_idx: {path} must start with the magic bytes 00 00, got {raw[:2].hex(' ')!r}")
    kind, found = raw[2], raw[3]
    if kind != _UBYTE:
        raise ValueError(f"read_idx: {path} must hold unsigned bytes (type 0x08), got type {kind:#04x}")
    if found != dims:
        raise ValueError(f"read_idx: {path} must have {dims} dimension(s), got {found}")
    return _array(path, raw, dims)


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"read_idx: {path} must be a whole gzip file, got: {error}") from error


def _array(path: Path, raw: bytes, dims: int) -> NDArray[np.uint8]:
    start = 4 + 4 * dims
    if len(raw) < start:
        raise ValueError(f"read_idx: {path} must have a header of {start} bytes, got {len(raw)} bytes in all")
    shape = struct.unpack(f">{dims}I", raw[4:start])
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= _MAX_ELEMENTS:
        raise ValueError(f"read_idx: {path} must have dimensions of at least 1, got {shape}")
    if len(raw) - start != count:
        raise ValueError(
            f"read_idx: {path} must hold {count} bytes for dimensions {shape}, got {len(raw) - start} "
            f"({'truncated' if len(raw) - start < count else 'too long'})"
        )
    return np.frombuffer(raw, np.uint8, count, start).reshape(shape)


def find_idx_pair(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Image and label file of an MNIST-like folder, or None when it has no image file of this split.

    Args:
        folder: where the files lie under their usual names, with or without .gz.
        split: "train" or "test" (whose files are called t10k-...).

    Raises:
        ValueError: when there are images but no labels.
    """
    prefix = {"train": "train", "test": "t10k"}.get(split, split)
    images = _existing(folder, f"{prefix}-images", "idx3-ubyte")
    if images is None:
        return None
    labels = _existing(folder, f"{prefix}-labels", "idx1-ubyte")
    if labels is None:
        raise ValueError(
            f"read_dataset: {folder} must hold {prefix}-labels-idx1-ubyte[.gz] beside {images.name}"
        )
    return images, labels


def _existing(folder: Path, stem: str, kind: str) -> Path | None:
    names = [f"{stem}{dash}{kind}{end}" for dash in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
