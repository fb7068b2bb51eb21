"""The report: known answers for images whose quality is known, repeatability, and refused input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff import cli
from fastdiff.evaluation import evaluate, load_classifier, predict
from fastdiff.evaluation.classifier_file import real_images
from fastdiff.evaluation.evaluate import Judge
from fastdiff.nn import UNet

Trained = tuple[Path, float]


@pytest.fixture(scope="module")
def judge(stripes: Path, stripes_classifier: Trained) -> Judge:
    return Judge(load_classifier(stripes_classifier[0]), stripes, 200)


@pytest.fixture(scope="module")
def untrained() -> fastdiff.Model:
    torch.manual_seed(0)
    net = UNet(in_channels=1, num_classes=10, channels=4, channel_mults=(1, 1), groups=2, blocks=1, heads=1)
    return fastdiff.Model(net, fastdiff.Schedule.named("cosine", T=50), "v", (1, 32, 32), 10)


def test_the_yardstick(judge: Judge, stripes: Path, stripes_classifier: Trained) -> None:
    assert judge.classifier_accuracy == stripes_classifier[1]
    images, labels = real_images(stripes, "train")
    first = torch.cat([images[labels == c][:20] for c in range(10)])
    features = predict(load_classifier(stripes_classifier[0]), first)[1]
    assert judge.real_distance == pytest.approx(judge.distance(features), rel=1e-9)
    assert judge.real_distance > 0 and judge.real_accuracy > 0.9


def test_the_real_test_images_are_perfect(judge: Judge, stripes: Path) -> None:
    images, labels = real_images(stripes, "test")

    def draw(steps: int, wanted: Tensor, first: int) -> Tensor:
        part = slice(first - 5, first - 5 + len(wanted))
        assert steps == 7 and torch.equal(labels[part], wanted)
        return images[part]

    row = judge.row(draw, 7, seed=5, batch=60)
    assert row.distance == pytest.approx(0.0, abs=1e-5) and row.ratio == row.distance / judge.real_distance
    assert row.accuracy == judge.classifier_accuracy
    assert sum(row.per_class) / 10 == pytest.approx(row.accuracy)


def test_wrong_classes_cost_accuracy_and_no_distance(judge: Judge, stripes: Path) -> None:
    images, labels = real_images(stripes, "test")
    moved = images.roll(-1, 0)  # every image now has the class after the one that was asked for
    row = judge.row(lambda steps, wanted, first: moved[first : first + len(wanted)], 1, seed=0, batch=50)
    assert row.accuracy < 0.1 and row.distance == pytest.approx(0.0, abs=1e-5)


def test_noise_is_far_away(judge: Judge) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(steps: int, wanted: Tensor, first: int) -> Tensor:
        return torch.rand((len(wanted), 1, 32, 32), generator=generator) * 2 - 1

    row = judge.row(draw, 1, seed=0, batch=100)
    assert row.accuracy < 0.35 and row.ratio > 20


def test_a_report_of_a_model(untrained: fastdiff.Model, stripes: Path, stripes_classifier: Trained) -> None:
    told: list[tuple[int, int, int]] = []
    arguments = {"num": 20, "data": stripes, "classifier": load_classifier(stripes_classifier[0]), "seed": 3}
    report = evaluate(untrained, steps=(1, 2), batch=15, progress=lambda *a: told.append(a), **arguments)
    assert told == [(1, 15, 20), (1, 20, 20), (2, 15, 20), (2, 20, 20)]
    assert [row.steps for row in report.rows] == [1, 2] and report.rows[0].distance != report.rows[1].distance
    assert json.loads(json.dumps(report.to_dict()))["rows"][1]["steps"] == 2
    assert "2 steps" in report.as_text() and f"{report.real_distance:.4f}" in report.as_text()
    again = evaluate(untrained, steps=(2,), batch=20, **arguments)
    assert again.rows[0].distance == pytest.approx(report.rows[1].distance, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": ()}, "steps must be"),
        ({"steps": (0,)}, "steps must be"),
        ({"num": 15}, "multiple of 10"),
        ({"num": 0}, "multiple of 10"),
        ({"batch": 0}, "batch must be"),
        ({"num": 610}, "at most 600"),
    ],
)
def test_wrong_counts(
    untrained: fastdiff.Model, stripes: Path, stripes_classifier: Trained, options: dict, words: str
) -> None:
    judge = load_classifier(stripes_classifier[0])
    with pytest.raises(ValueError, match=words):
        evaluate(untrained, **{"steps": (1,), "num": 20, "data": stripes, "classifier": judge, **options})


def test_a_model_of_other_images(stripes: Path) -> None:
    net = UNet(in_channels=1, num_classes=3, channels=4, channel_mults=(1,), groups=2, blocks=1, heads=1)
    model = fastdiff.Model(net, fastdiff.Schedule.named("cosine", T=50), "v", (1, 8, 8), 3)
    with pytest.raises(
        ValueError, match=r"must draw \(1, 32, 32\) images of 10 classes, got \(1, 8, 8\) and 3"
    ):
        evaluate(model, data=stripes)


def test_the_command(
    untrained: fastdiff.Model,
    stripes: Path,
    stripes_classifier: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(fastdiff.save(untrained, tmp_path / "model"))
    arguments = [
        "eval",
        "--model",
        folder,
        "--data",
        str(stripes),
        "--classifier",
        str(stripes_classifier[0]),
    ]
    out = tmp_path / "report.json"
    assert cli.main([*arguments, "--num", "20", "--steps", "1", "2", "--json-out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "real training images" in shown and "2 steps" in shown
    report = json.loads(out.read_text())
    assert report["model"] == folder and len(report["rows"]) == 2
    assert cli.main([*arguments, "--num", "7"]) == 2
    assert "multiple of 10" in capsys.readouterr().err


def test_the_command_trains_a_classifier(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", "--data", str(stripes), "--train-classifier", str(tmp_path / "c"), "--epochs", "1"]
    assert cli.main(arguments) == 0
    assert "epoch 1/1" in capsys.readouterr().err
    load_classifier(tmp_path / "c")
