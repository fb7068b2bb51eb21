"""Readers of the other formats, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from fastdiff.training import Dataset, read_dataset

GREY = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
COLOUR = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)


def cifar_folder(folder: Path, label: int = 3, cut: int = 0) -> Path:
    record = np.concatenate(([label], np.arange(3072) % 256)).astype(np.uint8)
    raw = np.tile(record, 2).tobytes()
    (folder / "data_batch_1.bin").write_bytes(raw[: len(raw) - cut])
    return folder


def test_cifar(tmp_path: Path) -> None:
    data = read_dataset(cifar_folder(tmp_path))
    assert data.images.shape == (2, 3, 32, 32)
    assert data.images[1, 2, 31, 31] == 3071 % 256
    assert data.labels is not None
    assert data.labels.tolist() == [3, 3]
    assert data.class_names[3] == "cat"
    with pytest.raises(ValueError, match="must hold the test batches"):
        read_dataset(tmp_path, split="test")


def test_cifar_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_batch_1.bin must be whole records of 3073 bytes, got 6145"):
        read_dataset(cifar_folder(tmp_path, cut=1))
    with pytest.raises(ValueError, match=r"labels in .*data_batch_1.bin must be 0...9, got 10"):
        read_dataset(cifar_folder(tmp_path, label=10))


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (2, 1, 4, 4)),
        (COLOUR, (2, 3, 4, 5)),
        (np.moveaxis(COLOUR, 1, -1), (2, 3, 4, 5)),
        ((COLOUR / 255).astype(np.float32), (2, 3, 4, 5)),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_array_files(tmp_path: Path, array: np.ndarray, shape: tuple[int, ...], suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    arrays = {"images": np.ascontiguousarray(array), "labels": np.array([1, 0])}
    np.savez(path, **arrays) if suffix == ".npz" else save_file(arrays, path)
    data = read_dataset(path)
    assert data.images.shape == shape
    expected = COLOUR if array.ndim == 4 else GREY[:, None]
    np.testing.assert_array_equal(data.images.numpy(), expected)
    assert data.labels is not None
    assert (data.labels.tolist(), data.num_classes) == ([1, 0], 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GREY}, r"must hold an array named 'images', got \['pictures'\]"),
        ({"images": GREY[0]}, r"must be \(N, C, H, W\), got \(4, 4\)"),
        ({"images": GREY * 1.0}, r"must be uint8, or floats in \[0, 1\]"),
        ({"images": GREY * np.nan}, r"must be uint8, or floats in \[0, 1\]"),
        ({"images": GREY, "labels": np.arange(3)}, r"labels of .* must be 2 integers, got int64 \(3,\)"),
        ({"images": GREY, "labels": np.array([0.5, 1])}, "must be 2 integers, got float64"),
        (
            {"images": GREY, "labels": np.array([-1, 1])},
            r"labels of .*bad.npz must lie in \[0, 2\), got -1...1",
        ),
        ({"images": np.array([None, 1], object)}, "must be an .npz file of plain arrays"),
    ],
)
def test_wrong_arrays_are_refused_by_name(tmp_path: Path, arrays: dict, message: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_dataset(path)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_array_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(b"not an archive at all")
    with pytest.raises(ValueError, match=f"bad{suffix} must be an? .?{suffix[1:]} file"):
        read_dataset(path)


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (torch.zeros(2, 1, 4, 4), None, (), r"must be \(N, C, H, W\) uint8, not empty, got torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), None, (), r"got torch.uint8 \(2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), None, (), "not empty"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), ("a",), r"must be \(2,\) int64"),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.tensor([0.0, 1]),
            ("a",),
            "int64, got torch.float32",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a",), r"\[0, 1\), got 0...1"),
    ],
)
def test_datasets_check_themselves(
    images: torch.Tensor, labels: Any, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset(images, labels, names, "test")


def picture(path: Path, mode: str, size: tuple[int, int], value: int) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def test_image_folder_with_classes(tmp_path: Path) -> None:
    picture(tmp_path / "b" / "1.png", "L", (6, 4), 10)
    picture(tmp_path / "b" / "2.png", "L", (6, 4), 20)
    picture(tmp_path / "a" / "1.png", "L", (6, 4), 30)
    (tmp_path / "notes").mkdir()
    data = read_dataset(tmp_path)
    assert data.images.shape == (3, 1, 4, 6)
    assert data.images[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert data.labels is not None
    assert (data.labels.tolist(), data.class_names) == ([0, 1, 1], ("a", "b"))


def test_image_folder_without_classes_scales_to_size(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", "RGB", (8, 12), 7)
    picture(tmp_path / "2.png", "L", (16, 9), 9)
    data = read_dataset(tmp_path, size=4)
    assert data.images.shape == (2, 3, 4, 4)
    assert data.labels is None
    assert data.images[:, :, 1, 1].tolist() == [[7, 0, 255], [9, 9, 9]]
    with pytest.raises(ValueError, match=r"2.png must have the size of the first picture \(8 x 12\)"):
        read_dataset(tmp_path)


def test_image_folder_names_an_unreadable_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="x.png must be a readable picture"):
        read_dataset(tmp_path)


def test_digits() -> None:
    train, test = read_dataset("digits", size=16), read_dataset("digits", split="test")
    assert train.images.shape == (1500, 1, 16, 16)
    assert test.images.shape == (297, 1, 8, 8)
    assert train.images.max() == 255
    assert train.images.dtype == torch.uint8


def test_unknown_sources_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of fashion-mnist, mnist, cifar10, digits, got 'imagenet'"):
        read_dataset("imagenet")
    with pytest.raises(ValueError, match="must hold IDX files, CIFAR-10 batches or pictures"):
        read_dataset(tmp_path)
    (tmp_path / "data.txt").write_text("hello")
    with pytest.raises(ValueError, match="data.txt must be an IDX, .npz or .safetensors file"):
        read_dataset(tmp_path / "data.txt")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        read_dataset("digits", split="val")
