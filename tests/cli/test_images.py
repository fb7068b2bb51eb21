"""Images to files: rounding, grids, PNG and GIF read back, and nothing half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdiff.cli import images
from fastdiff.cli.files import replacing


def test_to_uint8_rounds_to_nearest_and_clips() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0, -1.0 + 0.6 / 127.5]).reshape(6, 1, 1, 1)
    assert images.to_uint8(values).ravel().tolist() == [0, 0, 128, 255, 255, 1]


def test_to_uint8_inverts_the_reading_of_every_level() -> None:
    levels = torch.arange(256).float().reshape(1, 1, 16, 16)
    assert images.to_uint8(levels / 127.5 - 1).ravel().tolist() == list(range(256))


def test_to_uint8_moves_channels_last_and_refuses_other_shapes() -> None:
    assert images.to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        images.to_uint8(torch.zeros(3, 4, 5))


def test_grid_puts_images_row_by_row_and_leaves_the_rest_white() -> None:
    tiles = np.stack([np.full((2, 3, 1), 10 * k, np.uint8) for k in range(5)])
    sheet = images.grid(tiles, columns=3, gap=1)
    assert sheet.shape == (5, 11, 1)
    assert [sheet[0, 0, 0], sheet[0, 4, 0], sheet[0, 8, 0], sheet[3, 0, 0], sheet[3, 4, 0]] == [
        0,
        10,
        20,
        30,
        40,
    ]
    assert (sheet[3:, 8:] == 255).all() and (sheet[2] == 255).all()


def test_grid_never_has_more_columns_than_images() -> None:
    assert images.grid(np.zeros((2, 4, 4, 3), np.uint8), columns=10, gap=0).shape == (4, 8, 3)
    with pytest.raises(ValueError, match="at least 1"):
        images.grid(np.zeros((0, 4, 4, 3), np.uint8), columns=2)


@pytest.mark.parametrize(
    ("count", "classes", "columns"), [(64, 10, 10), (64, 1, 8), (65, 0, 9), (1, 0, 1), (9, 1000, 3)]
)
def test_grid_columns(count: int, classes: int, columns: int) -> None:
    assert images.grid_columns(count, classes) == columns


def test_enlarged_repeats_pixels() -> None:
    small = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert images.enlarged(small, 2)[0, :, :, 0].tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
    ]
    assert [images.fitting_factor(size) for size in (32, 28, 64, 256)] == [2, 3, 1, 1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_reads_back_bit_for_bit(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    images.save_png(tmp_path / "new" / "a.png", image)
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert np.array_equal(np.asarray(read).reshape(image.shape), image)


def test_two_channels_are_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, got 2; write \.npz"):
        images.save_png(tmp_path / "a.png", np.zeros((4, 4, 2), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_gif_has_all_frames(tmp_path: Path) -> None:
    frames = [np.full((6, 6, 1), 25 * k, np.uint8) for k in range(8)]
    images.save_gif(tmp_path / "a.gif", frames)
    with Image.open(tmp_path / "a.gif") as read:
        assert read.n_frames == 8
        read.seek(7)
        assert np.asarray(read.convert("L")).max() == 175


def test_npz_holds_images_seeds_and_labels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 1), dtype=np.uint8)
    images.save_npz(tmp_path / "a.npz", pixels, [5, 2**64 - 1], [0, 9])
    with np.load(tmp_path / "a.npz") as read:
        assert np.array_equal(read["arr_0"], pixels)
        assert read["seeds"].tolist() == [5, 2**64 - 1] and read["labels"].tolist() == [0, 9]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_finished_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
