"""Options, precision, processes, previews and the log."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdiff.training import Dataset, TrainConfig, train
from fastdiff.training.config import FREE, check_same_run
from fastdiff.training.logs import read_log
from fastdiff.training.precision import Precision, choose_dtype
from fastdiff.training.preview import grid
from fastdiff.training.processes import join

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"lr": 0.0}, "lr must be > 0"),
        ({"lr": float("nan")}, "lr must be > 0, got nan"),
        ({"warmup": -1}, "warmup must be >= 0"),
        ({"label_dropout": 1.5}, r"label_dropout must lie in \[0, 1\], got 1.5"),
        ({"ema_decay": -0.1}, r"ema_decay must lie in \[0, 1\]"),
        ({"seed": -1}, r"seed must lie in \[0, 2\^63\)"),
        ({"prediction": "noise"}, "TrainConfig: prediction must be one of eps, x0, v"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(data="x", out="y", **options)


def test_unknown_schedules_list_the_known_ones(shapes: Dataset, config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="cosine"):
        train(dataclasses.replace(config, schedule="cosinus"), shapes)
    assert not config.folder.exists()


def test_config_survives_json_and_free_options_may_change(config: TrainConfig) -> None:
    stored = json.loads(json.dumps(config.to_dict()))
    assert set(FREE) - set(stored) == {"vqvae"}  # which the configs of priors have
    check_same_run(stored, dataclasses.replace(config, out="elsewhere", steps=99, resume=True))
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        check_same_run(stored, dataclasses.replace(config, seed=1))


def test_precision_choices() -> None:
    assert choose_dtype("off", CPU) is None
    assert choose_dtype("bf16", CPU) == torch.bfloat16
    assert choose_dtype("auto", CPU) in (None, torch.bfloat16)
    with pytest.raises(ValueError, match="amp must be 'off', 'bf16' or 'auto' on a CPU"):
        choose_dtype("fp16", CPU)
    assert Precision("bf16", CPU).state() is None


def test_a_lone_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone = join("cpu")
    net = torch.nn.Linear(2, 2)
    assert (alone.rank, alone.world, alone.first, alone.device) == (0, 1, True, CPU)
    assert alone.wrap(net) is net
    assert (alone.largest(3), alone.mean(0.5)) == (3, 0.5)
    with pytest.raises(ValueError, match="device must be a device that is there, got 'abacus'"):
        join("abacus")


def test_grid_places_images_row_by_row() -> None:
    images = torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1).expand(5, 1, 2, 3)
    picture = grid(images, 2)
    assert picture.shape == (6, 6)
    assert picture[::2, ::3].tolist() == [[0, 64], [128, 191], [255, 0]]
    assert grid(images.expand(5, 3, 2, 3), 5).shape == (2, 15, 3)


def test_previews_are_written(shapes: Dataset, config: TrainConfig) -> None:
    from PIL import Image

    train(dataclasses.replace(config, steps=4, sample_every=2), shapes)
    written = sorted((config.folder / "samples").iterdir())
    assert [path.name for path in written] == ["step-00000002.png", "step-00000004.png"]
    assert Image.open(written[0]).size == (80, 32)


def test_previews_do_not_change_the_training(shapes: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    plain = train(config, shapes)
    shown = train(dataclasses.replace(config, sample_every=1, out=str(tmp_path / "shown")), shapes)
    assert torch.equal(plain.net.stem.weight, shown.net.stem.weight)


def test_a_log_with_a_torn_last_line_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_log(path) == [{"step": 1}]


def test_tensorboard_events_are_written(shapes: Dataset, config: TrainConfig) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an optional extra")
    train(dataclasses.replace(config, tensorboard=True), shapes)
    events = list((config.folder / "tensorboard").iterdir())
    assert events
    assert events[0].stat().st_size > 200
