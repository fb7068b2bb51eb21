"""The binary version of CIFAR-10 (Krizhevsky 2009): records of one label byte and 3 x 32 x 32 bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32


def is_cifar(folder: Path) -> bool:
    """Whether the folder holds CIFAR-10 binary batches."""
    return any(folder.glob("*_batch*.bin"))


def read_cifar(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) of the "train" or "test" batches.

    Raises:
        ValueError: naming the file, for a missing batch, a length that is not whole records, or a label above 9.
    """
    files = sorted(folder.glob("data_batch_*.bin" if split == "train" else "test_batch.bin"))
    if not files:
        raise ValueError(f"read_cifar: {folder} must hold the {split} batches (*.bin), got none")
    records = np.concatenate([_records(path) for path in files])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _records(path: Path) -> NDArray[np.uint8]:
    raw = np.fromfile(path, np.uint8)
    if raw.size == 0 or raw.size % _RECORD:
        raise ValueError(f"read_cifar: {path} must be whole records of {_RECORD} bytes, got {raw.size} bytes")
    records = raw.reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"read_cifar: labels in {path} must be 0...9, got {records[:, 0].max()}")
    return records
