"""Images and labels from common formats, read by one function, `read_dataset`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdiff.training import array_files, cifar, idx, image_folder

#: Sets known by name: folders where a system package or a user may have put them, and the names of their classes.
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGIT_CLASSES = tuple("0123456789")
NAMED = {
    "fashion-mnist": (
        (Path("/usr/share/datasets/fashion-mnist"), Path("data/fashion-mnist")),
        FASHION_CLASSES,
    ),
    "mnist": ((Path("/usr/share/datasets/mnist"), Path("data/mnist")), DIGIT_CLASSES),
    "cifar10": ((Path("data/cifar-10-batches-bin"), Path("data/cifar10")), cifar.CLASSES),
}


@dataclass(frozen=True)
class Dataset:
    """Images held in memory.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in [0, num_classes), or None.
        class_names: one name per class, empty when there are no labels.
        source: where the images came from, for messages.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        """Check the parts against each other.

        Raises:
            ValueError: naming the source.
        """
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != torch.uint8 or 0 in images.shape:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(
                f"Dataset: images of {self.source} must be (N, C, H, W) uint8, not empty, got {got}"
            )
        if labels is None:
            return
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise ValueError(f"Dataset: labels of {self.source} must be ({len(images)},) int64, got {got}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.class_names):
            known = len(self.class_names)
            raise ValueError(f"Dataset: labels of {self.source} must lie in [0, {known}), got {low}...{high}")

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without labels."""
        return len(self.class_names) if self.labels is not None else 0


def read_dataset(source: str | Path, *, split: str = "train", size: int | None = None) -> Dataset:
    """Read a set of images.

    Args:
        source: a name ("fashion-mnist", "mnist", "cifar10", "digits"), or a path: a folder of IDX files, of CIFAR-10
            binary batches or of pictures (a subfolder per class), an .npz or .safetensors file with `images` and,
            if there are any, `labels`, or a single IDX file of images.
        split: "train" or "test"; read by IDX folders, CIFAR-10 and digits.
        size: pad every image with zeros to size x size (pictures of a folder are scaled and cropped to it).

    Returns:
        A `Dataset`.

    Raises:
        ValueError: naming the file and what is wrong with it, or listing the known names.
    """
    if split not in ("train", "test"):
        raise ValueError(f"read_dataset: split must be 'train' or 'test', got {split!r}")
    images, labels, names = _read(str(source), split, size)
    names = _class_names(labels, names)
    return Dataset(
        _padded(images, size, source), None if labels is None else _tensor(labels), names, str(source)
    )


def _read(source: str, split: str, size: int | None) -> tuple[NDArray, NDArray | None, tuple[str, ...]]:
    if source == "digits":
        return (*array_files.read_digits(split), DIGIT_CLASSES)
    if source in NAMED:
        folders, names = NAMED[source]
        folder = next((f for f in folders if f.is_dir()), None)
        if folder is None:
            places = ", ".join(str(f) for f in folders)
            raise ValueError(f"read_dataset: the files of {source} must lie in one of {places}; none exists")
        images, labels, _ = _read_folder(folder, split, size)
        return images, labels, names
    return _read_path(Path(source), split, size)


def _read_path(path: Path, split: str, size: int | None) -> tuple[NDArray, NDArray | None, tuple[str, ...]]:
    if path.is_dir():
        return _read_folder(path, split, size)
    if not path.is_file():
        known = ", ".join([*NAMED, "digits"])
        raise ValueError(
            f"read_dataset: source must be a file, a folder or one of {known}, got {str(path)!r}"
        )
    if path.suffix in (".npz", ".safetensors"):
        return (*array_files.read_arrays(path), ())
    if "idx" in path.name:
        return idx.read_idx(path, 3)[:, None], None, ()
    raise ValueError(
        f"read_dataset: {path} must be an IDX, .npz or .safetensors file; its name fits none of them"
    )


def _read_folder(
    folder: Path, split: str, size: int | None
) -> tuple[NDArray, NDArray | None, tuple[str, ...]]:
    pair = idx.find_idx_pair(folder, split)
    if pair is not None:
        images, labels = idx.read_idx(pair[0], 3)[:, None], idx.read_idx(pair[1], 1)
        if len(images) != len(labels):
            raise ValueError(
                f"read_dataset: {pair[1]} must hold one label per image of {pair[0].name} ({len(images)}), "
                f"got {len(labels)}"
            )
        return images, labels, ()
    if cifar.is_cifar(folder):
        return (*cifar.read_cifar(folder, split), cifar.CLASSES)
    return image_folder.read_image_folder(folder, size)


def _class_names(labels: NDArray | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes; their numbers, where the format has no names."""
    if labels is None:
        return ()
    return names or tuple(str(i) for i in range(int(labels.max()) + 1 if labels.size else 0))


def _padded(images: NDArray, size: int | None, source: str | Path) -> Tensor:
    """(N, C, H, W) uint8 tensor with zeros around each image up to size x size."""
    if size is None:
        return _tensor(images)
    height, width = images.shape[-2:]
    if height > size or width > size:
        raise ValueError(
            f"read_dataset: size must be at least that of {source} ({height} x {width}), got {size}"
        )
    top, left = (size - height) // 2, (size - width) // 2
    around = ((0, 0), (0, 0), (top, size - height - top), (left, size - width - left))
    return _tensor(np.pad(images, around))


def _tensor(array: NDArray) -> Tensor:
    kind = np.uint8 if array.ndim == 4 else np.int64
    return torch.from_numpy(np.array(array, dtype=kind, order="C"))
