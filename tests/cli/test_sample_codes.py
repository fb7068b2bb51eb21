"""`fastdiff sample` with the folder of a PixelCNN: the images of its own call, resumed, around known parts, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdiff import cli, systems
from fastdiff.cli.images import seed_file, to_uint8
from fastdiff.systems.pixelcnn import LatentPixelCNN


def prior(folder: Path, classes: int = 0) -> LatentPixelCNN:
    torch.manual_seed(0)
    system = LatentPixelCNN(
        {"num_codebook": 8, "dim_codebook": 4, "channels": 1},
        {"dim": 8, "n_layers": 2, "n_classes": classes},
        image_size=8,
    ).eval()
    systems.save(system, folder)
    return system


def draw(folder: Path, *arguments: str) -> int:
    return cli.main(["sample", "--model", str(folder), "--no-progress", *arguments])


def test_images_are_those_of_the_system_in_any_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system, out = prior(tmp_path / "m", classes=2), tmp_path / "some.npz"
    arguments = ["--num", "5", "--seed", "3", "--labels", "0,1", "--batch", "2", "--json"]
    assert draw(tmp_path / "m", *arguments, "--out", str(out)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["steps"], told["evaluations"]) == (5, 16, 16)
    wanted = to_uint8(system.sample(5, labels=torch.tensor([0, 1, 0, 1, 0]), seed=3))
    np.testing.assert_array_equal(np.load(out)["arr_0"], wanted)


def test_a_folder_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior(tmp_path / "m")
    assert draw(tmp_path / "m", "--num", "2", "--out", str(tmp_path / "f")) == 0
    assert draw(tmp_path / "m", "--num", "3", "--resume", "--json", "--out", str(tmp_path / "f")) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["images"], told["skipped"]) == (1, 2)


def test_known_pixels_are_kept_as_codes(tmp_path: Path) -> None:
    system = prior(tmp_path / "m")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=pixels)
    more = ["--init", str(tmp_path / "x.npz"), "--mask", "top", "--num", "3", "--out", str(tmp_path / "f")]
    assert draw(tmp_path / "m", *more) == 0
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    mask = torch.zeros(4, 4)
    mask[:2] = 1
    wanted = to_uint8(system.sample(3, known=image, mask=mask))
    from PIL import Image

    found = np.stack([np.asarray(Image.open(seed_file(tmp_path / "f", seed))) for seed in range(3)])
    np.testing.assert_array_equal(found, wanted[..., 0])
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--solver", "ddpm"], "--solver must be left out for a PixelCNN"),
        (["--steps", "20"], "--steps must be left out"),
        (["--guidance", "2"], "--guidance must be left out"),
        (["--trajectory"], "--trajectory must be left out"),
        (["--batch-invariant"], "--batch-invariant must be left out"),
        (["--mask", "left"], "--init and --mask must go together"),
        ([], "--labels must be given for a PixelCNN of 2 classes"),
        (["--labels", "2"], "--labels must be < 2"),
        (["--labels", "bag"], "--labels must be numbers"),
    ],
)
def test_what_does_not_go_with_codes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    prior(tmp_path / "m", classes=2)
    assert draw(tmp_path / "m", *arguments, "--out", str(tmp_path / "x.png")) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("shape", [(4, 4), (8, 8), (2, 4, 4), (2, 1, 8, 8)])
def test_a_mask_is_of_codes_or_of_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    system, known = prior(tmp_path / "m"), torch.rand(2, 1, 8, 8) * 2 - 1
    half = torch.zeros(4, 4)
    half[:, :2] = 1
    mask = torch.zeros(shape)
    mask[..., : shape[-1] // 2] = 1
    assert torch.equal(system.sample(2, known=known, mask=mask), system.sample(2, known=known, mask=half))
    line = torch.zeros(8, 8)
    line[3] = 1
    with pytest.raises(ValueError, match="mask must mark all 2 x 2 pixels of a code at least"):
        system.sample(2, known=known, mask=line)
    for image in (known[..., :4], known[0, 0], [1.0]):
        with pytest.raises(ValueError, match=r"LatentPixelCNN: known must be images \(1, 8, 8\), got"):
            system.sample(2, known=image, mask=half)
    with pytest.raises(TypeError, match="x must be floating point, in .* got torch.uint8"):
        system.sample(2, known=known.to(torch.uint8), mask=half)
    wrong: list[Any] = [torch.ones(3, 3), torch.ones(8), torch.ones(1, 1, 1, 4, 4)]
    for other in wrong:
        with pytest.raises(
            ValueError, match=r"LatentPixelCNN: mask must be \(8, 8\) pixels or \(4, 4\) codes"
        ):
            system.sample(2, known=known, mask=other)
