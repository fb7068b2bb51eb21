"""The trained classifier on disk: its weights, and a JSON file with their checksum and origin."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fastdiff.evaluation.classifier import Classifier, Progress, predict, train_classifier
from fastdiff.training import read_dataset

SHIPPED = Path(__file__).parents[1] / "assets" / "fashion_classifier"
WEIGHTS, FACTS = "classifier.safetensors", "classifier.json"


def real_images(data: str | Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) in [-1, 1] and labels (N,) of the real set, padded to 32x32 with black."""
    dataset = read_dataset(data, split=split, size=32)
    if dataset.labels is None or dataset.num_classes != 10 or dataset.images.shape[1] != 1:
        raise ValueError(f"evaluation: data must be grey images of 10 classes, got {dataset.source}")
    return dataset.images.float() / 127.5 - 1.0, dataset.labels


def make_classifier(
    data: str | Path, folder: Path, *, epochs: int = 8, seed: int = 0, progress: Progress | None = None
) -> float:
    """Train a classifier on the real training images, write it to `folder`, return its accuracy on the test images."""
    images, labels = real_images(data, "train")
    classifier = train_classifier(images, labels, epochs=epochs, seed=seed, progress=progress)
    images, labels = real_images(data, "test")
    accuracy = float((predict(classifier, images)[0] == labels.numpy()).mean())
    facts = {"data": str(data), "epochs": epochs, "seed": seed, "test_accuracy": round(accuracy, 4)}
    save_classifier(classifier, folder, facts)
    return accuracy


def save_classifier(classifier: Classifier, folder: Path, facts: dict[str, Any]) -> None:
    """Write weights, then the facts with their checksum; each file under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()})
    note = {"format": "fastdiff.classifier", "sha256": hashlib.sha256(weights).hexdigest(), **facts}
    _write(folder / WEIGHTS, weights)
    _write(folder / FACTS, (json.dumps(note, indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def load_classifier(folder: Path = SHIPPED) -> Classifier:
    """The classifier kept in `folder`, by default the shipped one, in evaluation mode.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when its files are damaged or belong to something else.
    """
    weights = (folder / WEIGHTS).read_bytes()
    note = _facts(folder / FACTS)
    if note.get("sha256") != hashlib.sha256(weights).hexdigest():
        raise ValueError(
            f"load_classifier: {folder / WEIGHTS} must have the checksum in {FACTS}, got another"
        )
    classifier = Classifier()
    try:
        classifier.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"load_classifier: {folder / WEIGHTS} must hold a classifier, got: {error}"
        ) from None
    return classifier.eval()


def _facts(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"load_classifier: {path} must be JSON, got: {error}") from None
    if not isinstance(note, dict) or note.get("format") != "fastdiff.classifier":
        raise ValueError(f"load_classifier: {path} must describe a fastdiff.classifier, got something else")
    return note
