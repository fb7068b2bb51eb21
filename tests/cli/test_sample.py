"""`fastdiff sample`: grids, folders, arrays, resuming, trajectories and refused options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastdiff
from fastdiff import cli
from fastdiff.cli.images import to_uint8

STEPS = ("--steps", "3")


def _sample(model: str, *arguments: str) -> int:
    return cli.main(["sample", "--model", model, *STEPS, *arguments])


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_grid_has_one_column_per_class(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.png"
    assert _sample(toy_model, "--num", "7", "--labels", "0-2", "--scale", "1", "--out", str(out)) == 0
    assert _pixels(out).shape == (3 * 8 + 2 * 2, 3 * 8 + 2 * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    told = capsys.readouterr().out
    assert f"wrote {out}" in told and "7 images, 3 steps" in told and "images/s" in told


def test_images_are_those_of_the_library_call(toy_model: str, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    assert (
        _sample(
            toy_model, "--num", "5", "--labels", "bag,0", "--guidance", "2", "--seed", "7", "--out", str(out)
        )
        == 0
    )
    wanted = fastdiff.sample(fastdiff.load(toy_model), 3, num=5, labels=[2, 0, 2, 0, 2], guidance=2.0, seed=7)
    with np.load(out) as read:
        assert np.array_equal(read["arr_0"], to_uint8(wanted))
        assert read["seeds"].tolist() == [7, 8, 9, 10, 11] and read["labels"].tolist() == [2, 0, 2, 0, 2]


def test_a_folder_has_a_file_per_seed_in_any_batch_size(toy_model: str, tmp_path: Path) -> None:
    for batch in (2, 5):
        assert (
            _sample(
                *(
                    toy_model,
                    "--seeds",
                    "3-6,17",
                    "--labels",
                    "0-2",
                    "--batch",
                    str(batch),
                    "--batch-invariant",
                ),
                *("--out", str(tmp_path / str(batch))),
            )
            == 0
        )
    names = sorted(path.name for path in (tmp_path / "2").iterdir())
    assert names == ["000003.png", "000004.png", "000005.png", "000006.png", "000017.png"]
    for name in names:
        assert np.array_equal(_pixels(tmp_path / "2" / name), _pixels(tmp_path / "5" / name))


def test_resume_draws_only_what_is_missing_with_the_labels_it_would_have_had(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--num", "6", "--labels", "0-2", "--batch-invariant", "--out", str(tmp_path / "f"))
    assert _sample(toy_model, *arguments) == 0
    gone, kept = tmp_path / "f" / "000004.png", tmp_path / "f" / "000001.png"
    before = _pixels(gone)
    gone.unlink()
    kept.write_bytes(b"kept as it is")
    capsys.readouterr()
    assert _sample(toy_model, *arguments, "--resume", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["skipped"]) == (1, 5)
    assert np.array_equal(_pixels(gone), before) and kept.read_bytes() == b"kept as it is"
    assert _sample(toy_model, *arguments, "--resume") == 0
    assert "already there: 6 images" in capsys.readouterr().out


def test_processes_share_the_seeds(toy_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert _sample(toy_model, "--num", "5", "--out", str(tmp_path / "f")) == 0
    assert sorted(path.stem for path in (tmp_path / "f").iterdir()) == ["000003", "000004"]
    assert _sample(toy_model, "--num", "5", "--out", str(tmp_path / "a.png")) == 2


def test_the_trajectory_ends_in_the_images(toy_model: str, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    arguments = (
        "--num",
        "4",
        "--batch",
        "2",
        "--scale",
        "1",
        "--columns",
        "2",
        "--trajectory",
        "--batch-invariant",
    )
    assert _sample(toy_model, *arguments, "--out", str(out)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.png", "a_strip.png"]
    grid, strip = _pixels(out), _pixels(tmp_path / "a_strip.png")
    assert strip.shape == (2 * 8 + 2, 4 * 8 + 3 * 2)  # two images, start and three steps
    assert np.array_equal(strip[:8, -8:], grid[:8, :8])
    assert np.array_equal(strip[-8:, -8:], grid[:8, -8:])
    with Image.open(tmp_path / "a.gif") as read:
        assert read.n_frames == 4 and read.size == (18, 8)


def test_the_trajectory_of_a_folder_lies_inside(toy_model: str, tmp_path: Path) -> None:
    assert _sample(toy_model, "--num", "1", "--trajectory", "--out", str(tmp_path / "f")) == 0
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert names == ["000000.png", "trajectory.gif", "trajectory_strip.png"]


def test_a_config_file_gives_options(toy_model: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"num": 2, "out": str(tmp_path / "c.npz"), "labels": "shoe"}))
    assert _sample(toy_model, "--config", str(tmp_path / "c.json"), "--num", "3") == 0
    with np.load(tmp_path / "c.npz") as read:
        assert read["labels"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "0"), "steps must be"),
        (("--steps", "51"), "1 ... 50"),
        (("--solver", "dim"), "must be one of"),
        (("--spacing", "even"), "ays_sdxl, optimized, got 'even'"),
        (("--labels", "hat"), "(shirt, shoe, bag), got 'hat'"),
        (("--labels", "1-5"), "must be < 3"),
        (("--labels", "5-1"), "a range must rise"),
        (("--labels", "1-"), "must be numbers and ranges"),
        (("--labels", ""), "--labels must be numbers"),
        (("--seeds", "a"), "numbers and ranges"),
        (("--seeds", "1-3", "--num", "2"), "num = 2"),
        (("--num", "0"), "--num must be >= 1"),
        (("--batch", "0"), "--batch must be >= 1"),
        (("--seed", "-1"), "[0, 2^64)"),
        (("--resume",), "--resume must go with a folder"),
        (("--device", "abacus"), "--device must be a device that is there"),
        (("--device", "meta"), "--device must hold numbers"),
        (("--model", "shoes"), "known model"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert cli.main(["sample", "--model", toy_model, "--out", str(tmp_path / "x.png"), *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("fastdiff: ") and words in told.err
    assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused_and_no_folder_of_that_name_made(toy_model: str, tmp_path: Path) -> None:
    assert _sample(toy_model, "--out", str(tmp_path / "grid.jpg")) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_before_anything_is_drawn(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert _sample(toy_model, "--out", str(tmp_path / "file" / "grid.png")) == 2
    assert "must lie where files can be written" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_is_refused(toy_model: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    assert _sample(toy_model, "--out", str(tmp_path / "taken")) == 2
    assert (tmp_path / "taken").read_text() == "x"


def test_a_folder_in_the_place_of_a_grid_is_told_before_anything_is_drawn(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "grid.png").mkdir()
    assert _sample(toy_model, "--out", str(tmp_path / "grid.png")) == 2
    assert "--out must name a file" in capsys.readouterr().err and not list((tmp_path / "grid.png").iterdir())


def test_one_image_is_not_told_as_several(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _sample(toy_model, "--num", "1", "--steps", "1", "--out", str(tmp_path / "a.png")) == 0
    assert "\n1 image, 1 step, 1 evaluation each, " in capsys.readouterr().out


def test_evaluations_of_guided_rows_are_told(
    toy_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for name, more in {
        "plain": [],
        "guided": ["--guidance", "2"],
        "some": ["--guidance", "2", "--interval", "0", "20", "--rescale", "0.5", "--dynamic"],
    }.items():
        arguments = ["--num", "2", "--labels", "0", "--json", *more, "--out", str(tmp_path / f"{name}.npz")]
        assert _sample(toy_model, *arguments) == 0
        told[name] = json.loads(capsys.readouterr().out)["evaluations"]
    assert told == {"plain": 3, "guided": 6, "some": 4}
    wrong = ["--labels", "0", "--guidance", "2", "--rescale", "3", "--out", str(tmp_path / "x.npz")]
    assert _sample(toy_model, *wrong) == 2
    assert "rescale must be in [0, 1]" in capsys.readouterr().err
