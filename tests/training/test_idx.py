"""IDX files: right ones are read, wrong ones are refused by name."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiff.training.datasets import NAMED, read_dataset
from fastdiff.training.idx import find_idx_pair, read_idx


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_reads_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    np.testing.assert_array_equal(read_idx(written(tmp_path / name, idx_bytes(IMAGES)), 3), IMAGES)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "must start with the magic bytes 00 00"),
        (b"\x00\x01" + idx_bytes(IMAGES)[2:], "must start with the magic bytes 00 00, got '00 01'"),
        (idx_bytes(IMAGES, kind=0x0D), "must hold unsigned bytes .* got type 0x0d"),
        (idx_bytes(IMAGES[0]), r"must have 3 dimension\(s\), got 2"),
        (idx_bytes(IMAGES)[:10], "must have a header of 16 bytes, got 10"),
        (idx_bytes(IMAGES)[:-1], "must hold 60 bytes .* got 59 .truncated"),
        (idx_bytes(IMAGES) + b"x", "must hold 60 bytes .* got 61 .too long"),
        (idx_bytes(np.zeros((0, 4, 5), np.uint8)), "dimensions of at least 1"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"abc", "must have dimensions of at least 1|must hold"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, raw: bytes, message: str) -> None:
    path = written(tmp_path / "bad-idx3-ubyte", raw)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_other_bytes_are_read_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(idx_bytes(IMAGES))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, 19))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(raw), 3, 15, 40]))
    path = written(tmp_path_factory.getbasetemp() / "fuzzed", bytes(raw[:cut]))
    try:
        array = read_idx(path, 3)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert array.size == cut - 16 == IMAGES.size


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES))[:-9])
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        read_idx(path, 3)
    path.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        read_idx(path, 3)


def folder_of(tmp_path: Path, labels: np.ndarray | None) -> Path:
    written(tmp_path / "train-images-idx3-ubyte.gz", idx_bytes(IMAGES))
    if labels is not None:
        written(tmp_path / "train-labels-idx1-ubyte", idx_bytes(labels))
    return tmp_path


def test_folder_is_a_dataset(tmp_path: Path) -> None:
    data = read_dataset(folder_of(tmp_path, np.array([0, 2, 1], np.uint8)), size=8)
    assert data.images.shape == (3, 1, 8, 8)
    assert data.num_classes == 3
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2, 1]
    np.testing.assert_array_equal(data.images[:, 0, 2:6, 1:6].numpy(), IMAGES)
    assert int(data.images.sum()) == int(IMAGES.sum(dtype=np.int64))


def test_missing_labels_and_other_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold train-labels-idx1-ubyte"):
        read_dataset(folder_of(tmp_path, None))
    with pytest.raises(ValueError, match=r"one label per image of train-images.* \(3\), got 2"):
        read_dataset(folder_of(tmp_path, np.array([0, 2], np.uint8)))
    assert find_idx_pair(tmp_path, "test") is None


def test_size_smaller_than_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"size must be at least that of .*\(4 x 5\), got 4"):
        read_dataset(folder_of(tmp_path, np.zeros(3, np.uint8)), size=4)


@pytest.mark.skipif(
    not NAMED["fashion-mnist"][0][0].is_dir(), reason="the package dataset-fashion-mnist is not installed"
)
def test_the_real_files() -> None:
    train, test = (read_dataset("fashion-mnist", split=s, size=32) for s in ("train", "test"))
    assert train.images.shape == (60_000, 1, 32, 32)
    assert test.images.shape == (10_000, 1, 32, 32)
    assert train.labels is not None
    assert train.labels.bincount().tolist() == [6000] * 10
    assert train.class_names[9] == "Ankle boot"
    assert not train.images[:, :, :2].any()
    assert abs(float(train.images[:, :, 2:30, 2:30].float().mean()) - 72.94) < 0.01
