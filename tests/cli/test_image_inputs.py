"""`fastdiff sample --init, --start, --mask`: what is read, what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastdiff
from fastdiff import cli
from fastdiff.cli.image_inputs import read_images, read_mask
from fastdiff.cli.images import to_uint8

GREY = (1, 8, 8)


def _picture(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_pictures_become_numbers_from_minus_one_to_one(tmp_path: Path) -> None:
    first, second = _picture(tmp_path / "a.png"), _picture(tmp_path / "b.png", seed=1)
    read = read_images(tmp_path, GREY, "--init")
    assert np.array_equal(to_uint8(read)[..., 0], np.stack([first, second]))
    colour = read_images(tmp_path / "a.png", (3, 8, 8), "--init")
    assert torch.equal(colour, read[:1].expand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "known"),
    [("top", (0, 2, 0, 8)), ("right", (0, 4, 4, 8)), ("centre", (1, 3, 2, 6)), ("bottom", (2, 4, 0, 8))],
)
def test_masks_by_name(name: str, known: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = known
    expected = torch.zeros(1, 1, 4, 8)
    expected[..., top:bottom, left:right] = 1
    assert torch.equal(read_mask(name, (3, 4, 8)), expected)


def test_the_known_part_is_kept_and_every_image_has_its_own(toy_model: str, tmp_path: Path) -> None:
    given = np.stack([_picture(tmp_path / "in_a.png"), _picture(tmp_path / "in_b.png", seed=1)])
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in_{name}.png").rename(tmp_path / "in" / f"{name}.png")
    arguments = ["sample", "--model", toy_model, "--steps", "3", "--num", "3", "--init", str(tmp_path / "in")]
    out = tmp_path / "out"
    assert cli.main([*arguments, "--mask", "left", "--batch", "2", "--out", str(out)]) == 0
    drawn = np.stack([np.asarray(Image.open(out / f"{seed:06d}.png")) for seed in range(3)])
    assert np.array_equal(drawn[:, :, :4], given[[0, 1, 0]][:, :, :4])
    assert (drawn[:, :, 4:] != given[[0, 1, 0]][:, :, 4:]).any()
    (out / "000001.png").unlink()
    assert cli.main([*arguments, "--mask", "left", "--resume", "--out", str(out)]) == 0
    assert np.array_equal(np.asarray(Image.open(out / "000001.png"))[:, :4], given[1][:, :4])


def test_starting_at_a_row_is_that_of_the_library(toy_model: str, tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "a.png")
    out = tmp_path / "out.npz"
    arguments = [
        "sample",
        "--model",
        toy_model,
        "--steps",
        "5",
        "--num",
        "2",
        "--init",
        str(tmp_path / "a.png"),
    ]
    assert cli.main([*arguments, "--start", "3", "--out", str(out)]) == 0
    x_init = torch.from_numpy(pixels).float()[None, None] / 127.5 - 1
    wanted = fastdiff.sample(fastdiff.load(toy_model), 5, num=2, x_init=x_init, start=3)
    with np.load(out) as read:
        assert np.array_equal(read["arr_0"], to_uint8(wanted))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--init", "absent.png"], "--init must be a picture, a folder or an .npz file"),
        (["--init", "broken.png"], "--init must be a readable picture"),
        (["--init", "empty"], "--init must hold pictures"),
        (["--init", "wide.png"], "--init must hold images of 1 x 8 x 8, got 1 x 8 x 9"),
        (["--init", "wrong.npz"], "--init must hold (N, H, W, C) uint8"),
        (
            ["--init", "good.png", "--mask", "middle"],
            "--mask must be one of top, bottom, left, right, centre",
        ),
        (["--init", "good.png", "--mask", "wide.png"], "--mask must hold images of 1 x 8 x 8"),
        (["--mask", "left"], "x_init must be given with mask"),
        (["--init", "good.png", "--start", "9"], "row must be in [0, 3)"),
        (["--solver", "ddim_inverse"], "x_init must be given with ddim_inverse"),
    ],
)
def test_what_does_not_fit_is_refused(
    toy_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    _picture(tmp_path / "good.png")
    _picture(tmp_path / "wide.png", (9, 8))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "wrong.npz", arr_0=np.zeros((2, 8, 8)))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["sample", "--model", toy_model, "--steps", "3", *arguments, "--out", "o.npz"]) == 2
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
