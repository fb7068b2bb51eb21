"""`fastdiff train` on a tiny run: a model folder, resuming, refusals, and a stop by signal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import fastdiff
from fastdiff import cli, training

TINY = (
    *("--data", "digits", "--batch-size", "4", "--warmup", "0", "--no-progress", "--device", "cpu"),
    *(
        "--network.channels",
        "8",
        "--network.channel-mults",
        "1",
        "--network.groups",
        "4",
        "--network.blocks",
        "1",
    ),
    *("--network.heads", "1", "--timesteps", "20"),
)


def test_a_run_ends_in_a_model_that_samples_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert cli.main(["train", *TINY, "--out", out, "--steps", "2"]) == 0
    assert f"wrote {out}/model" in capsys.readouterr().out
    assert (
        cli.main(["sample", "--model", f"{out}/model", "--num", "1", "--steps", "2", "--out", f"{out}/s.npz"])
        == 0
    )
    assert cli.main(["train", *TINY, "--out", out, "--steps", "3"]) == 2
    assert "resume" in capsys.readouterr().err
    assert cli.main(["train", *TINY, "--out", out, "--steps", "3", "--resume"]) == 0
    assert fastdiff.load(f"{out}/model").meta["steps"] == 3


def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "r"), "--steps", "0"]) == 2
    assert "steps must be >= 1" in capsys.readouterr().err
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "r"), "--data", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err
    assert not (tmp_path / "r" / "model").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (training.TrainingStopped(signal.SIGTERM, 5), 143),
        (training.TrainingStopped(signal.SIGINT, 5), 130),
        (FloatingPointError("train: loss must be finite, got nan at step 5"), 1),
    ],
)
def test_how_a_run_can_end_early(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    status: int,
) -> None:
    def stop(config: training.TrainConfig, **_: object) -> None:
        raise error

    monkeypatch.setattr(training, "train", stop)
    assert cli.main(["train", *TINY, "--out", str(tmp_path / "r")]) == status
    assert "step 5" in capsys.readouterr().err


def test_a_word_says_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert cli.main(["train", "diffusion", *TINY, "--out", out, "--steps", "1"]) == 0
    assert cli.main(["train", "gan", "--out", out]) == 2
    assert "must be one of diffusion" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["vqvae", "hierarchical-vqvae"])
def test_autoencoders(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, deep = str(tmp_path / "run"), word != "vqvae"
    options = ["--data", "digits", "--batch-size", "4", "--no-progress", "--device", "cpu", "--steps", "1"]
    small = ["--network.width", "8", "--network.groups", "4", "--network.layers", "1"] if deep else []
    codes = ["--network.codebook-options", "decay", "0.9", "--network.dim-codebook", "8"]
    assert cli.main(["train", word, *options, *small, *codes, "--out", out]) == 0
    assert f"wrote {out}/model" in capsys.readouterr().out
    system = fastdiff.systems.load(f"{out}/model")
    assert system.config["codebook_options"] == {"decay": 0.9}
    wrong = ["--network.codebook-options", "speed", "1", "--out", str(tmp_path / "other")]
    assert cli.main(["train", word, *options, *small, *wrong]) == 2
    assert "options must be those of 'ema'" in capsys.readouterr().err


def test_the_help_lists_what_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(
        word in told for word in ("WHAT is one of diffusion, vqvae, hierarchical-vqvae", "--timesteps")
    )
    assert cli.main(["train", "vqvae", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--network.codebook-flavor" in told and "--timesteps" not in told
