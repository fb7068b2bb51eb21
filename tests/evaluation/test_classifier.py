"""The classifier: training is repeatable and learns, files are checked, wrong input is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdiff.evaluation import Classifier, load_classifier, predict, train_classifier
from fastdiff.evaluation.classifier_file import FACTS, SHIPPED, WEIGHTS, real_images, save_classifier

REAL = Path("/usr/share/datasets/fashion-mnist")


def test_real_images_are_padded_with_black(stripes: Path) -> None:
    images, labels = real_images(stripes, "test")
    assert images.shape == (200, 1, 32, 32) and labels.tolist()[:11] == [*range(10), 0]
    assert (images[:, :, :2] == -1).all() and images.max() == 1 and images.min() == -1


def test_it_learns_and_its_facts_are_written_down(stripes_classifier: tuple[Path, float]) -> None:
    folder, accuracy = stripes_classifier
    assert accuracy >= 0.9
    facts = json.loads((folder / FACTS).read_text())
    assert facts["test_accuracy"] == pytest.approx(accuracy, abs=1e-4) and facts["epochs"] == 10
    assert sorted(path.name for path in folder.iterdir()) == [FACTS, WEIGHTS]


def test_what_is_loaded_predicts_what_was_trained(
    stripes: Path, stripes_classifier: tuple[Path, float]
) -> None:
    images, labels = real_images(stripes, "test")
    classes, features = predict(load_classifier(stripes_classifier[0]), images, batch=64)
    assert (classes == labels.numpy()).mean() == stripes_classifier[1]
    assert features.shape == (200, 64) and features.dtype == np.float64
    again = predict(load_classifier(stripes_classifier[0]), images, batch=7)
    np.testing.assert_allclose(again[1], features, atol=1e-5)


def test_training_is_repeatable_and_its_seed_counts(stripes: Path) -> None:
    images, labels = real_images(stripes, "train")
    first, same, other = (
        train_classifier(images[:64], labels[:64], epochs=1, batch=32, seed=seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_training_leaves_the_global_generator_alone(stripes: Path) -> None:
    images, labels = real_images(stripes, "train")
    before = torch.random.get_rng_state()
    train_classifier(images[:4], labels[:4], epochs=1, batch=3)  # the last batch has one image: left out
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.zeros(2, 1, 28, 28), ValueError, r"\(B, 1, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32), ValueError, r"\(B, 1, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), TypeError, "floating-point"),
        (torch.full((2, 1, 32, 32), float("nan")), ValueError, "finite"),
    ],
)
def test_wrong_images(images: torch.Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Classifier()(images)


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.tensor([0, 10]), torch.tensor([-1, 0])],
)
def test_wrong_labels(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="labels must be"):
        train_classifier(torch.zeros(2, 1, 32, 32), labels, epochs=1)


def test_other_data_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.arange(6) % 3)
    with pytest.raises(ValueError, match="10 classes"):
        real_images(tmp_path / "a.npz", "test")


@pytest.mark.parametrize("counts", [{"epochs": 0}, {"batch": 1}])
def test_wrong_counts(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="epochs must be >= 1 and batch >= 2"):
        train_classifier(torch.zeros(4, 1, 32, 32), torch.zeros(4, dtype=torch.int64), **counts)


def _damaged(folder: Path, name: str, change: bytes | str) -> Path:
    save_classifier(Classifier(), folder, {})
    path = folder / name
    path.write_bytes(change) if isinstance(change, bytes) else path.write_text(change)
    return folder


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    save_classifier(Classifier(), tmp_path, {})
    raw = bytearray((tmp_path / WEIGHTS).read_bytes())
    raw[len(raw) // 2] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        load_classifier(_damaged(tmp_path, WEIGHTS, bytes(raw)))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_other_facts_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"classifier\.json must"):
        load_classifier(_damaged(tmp_path, FACTS, text))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_classifier(Classifier(width=32), tmp_path, {})
    with pytest.raises(ValueError, match="must hold a classifier"):
        load_classifier(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_classifier(tmp_path)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="the real Fashion-MNIST files (Debian: dataset-fashion-mnist) are not here"
)
def test_the_shipped_classifier_meets_its_bar() -> None:
    images, labels = real_images("fashion-mnist", "test")
    accuracy = (predict(load_classifier(), images)[0] == labels.numpy()).mean()
    assert accuracy >= 0.91
    assert json.loads((SHIPPED / FACTS).read_text())["test_accuracy"] == pytest.approx(accuracy, abs=5e-4)
    assert (SHIPPED / WEIGHTS).stat().st_size <= 2**20
