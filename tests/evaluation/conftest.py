"""A made-up set of ten kinds of pictures in the files of the real one, easy enough for a few training steps."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fastdiff.evaluation import make_classifier


def _pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """28x28 pictures: class c has c + 1 bright stripes over dim noise (a number that shifts keep)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 10
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[np.arange(28) * 2 * (int(label) + 1) // 28 % 2 == 0] = 255
    return images, labels


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of IDX files: 600 training and 200 test pictures."""
    folder = tmp_path_factory.mktemp("stripes")
    for name, count, seed in (("train", 600, 0), ("t10k", 200, 1)):
        images, labels = _pictures(count, seed)
        head = struct.pack(">HBBIII", 0, 8, 3, *images.shape)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = struct.pack(">HBBI", 0, 8, 1, count)
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels.tobytes()))
    return folder


@pytest.fixture(scope="session")
def stripes_classifier(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Folder of a classifier trained on the stripes, and its accuracy."""
    folder = tmp_path_factory.mktemp("classifier")
    return folder, make_classifier(stripes, folder, epochs=10)
