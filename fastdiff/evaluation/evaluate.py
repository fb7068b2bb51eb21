"""Quality of a class-conditional garment model: class accuracy and Frechet distance of its images, by step count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdiff.evaluation.classifier import CLASSES, SIZE, Classifier, predict
from fastdiff.evaluation.classifier_file import load_classifier, real_images
from fastdiff.evaluation.frechet import gaussian_distance, moments
from fastdiff.model import Model, load
from fastdiff.sampling import sample

#: What a progress display is told: steps of the current row, images done, images in all.
Progress = Callable[[int, int, int], None]
#: Makes the images of a part: (steps, labels (n,), first seed) -> (n, 1, 32, 32) in [-1, 1].
Draw = Callable[[int, Tensor, int], Tensor]


@dataclass(frozen=True)
class Row:
    """Result at one step count.

    Attributes:
        steps: Intervals of the time list.
        accuracy: Part of the images that the classifier puts into the class they were drawn for.
        distance: Frechet distance of their features to those of the real test images.
        ratio: That distance over the distance of as many real training images.
        per_class: Accuracy of each class.
        seconds: Time spent drawing.
    """

    steps: int
    accuracy: float
    distance: float
    ratio: float
    per_class: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Report:
    """An evaluation: the yardstick (classifier, real distance) and a row for each step count.

    Attributes:
        model: Name or path of the model.
        num: Images per row, and training images in `real_distance`.
        guidance: Guidance weight; 1 is none.
        solver: Name of the solver.
        seed: Seed of the first image.
        classifier_accuracy: Of the classifier on the real test images.
        real_accuracy: Of the classifier on the `num` real training images.
        real_distance: Frechet distance of `num` real training images to the real test images.
        rows: One for each step count.
    """

    model: str
    num: int
    guidance: float
    solver: str
    seed: int
    classifier_accuracy: float
    real_accuracy: float
    real_distance: float
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)

    def as_text(self) -> str:
        """A table for people."""
        head = (
            f"{self.model}: {self.num} images a row, {self.solver}, guidance {self.guidance:g}, seed {self.seed}\n"
            f"classifier on real test images: {self.classifier_accuracy:.2%}\n\n"
        )
        lines = [f"{'images':<22}{'class accuracy':>15}{'Frechet distance':>18}{'x real':>8}{'seconds':>9}"]
        lines.append(_line("real training images", self.real_accuracy, self.real_distance, 1.0, ""))
        lines += [
            _line(f"{r.steps} steps", r.accuracy, r.distance, r.ratio, f"{r.seconds:.0f}") for r in self.rows
        ]
        return head + "\n".join(lines)


def _line(name: str, accuracy: float, distance: float, ratio: float, seconds: str) -> str:
    return f"{name:<22}{accuracy:>15.2%}{distance:>18.4f}{ratio:>8.2f}{seconds:>9}"


def evaluate(
    model: str | Path | Model = "fashion",
    *,
    steps: Sequence[int] = (10, 20, 50, 100),
    num: int = 2000,
    guidance: float = 1.0,
    solver: str = "ddim",
    seed: int = 0,
    batch: int = 100,
    data: str | Path = "fashion-mnist",
    classifier: Classifier | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judge a class-conditional model of grey 32x32 garments.

    Image i of a row has class i modulo 10 and seed `seed` + i, in every row: rows differ by step count alone.

    Args:
        model: Name, path or loaded model.
        steps: Step counts, one row each.
        num: Images per row; a multiple of 10, so that classes are equally frequent.
        guidance: Weight; 1 is none.
        solver: Name of the solver.
        seed: Seed of the first image.
        batch: Images drawn at a time.
        data: The real images, as `fastdiff.training.read_dataset` takes them.
        classifier: The judge; None loads the shipped one.
        progress: Called as images are done.

    Returns:
        The report.

    Raises:
        ValueError: for a model of other images or classes, or counts out of range.
    """
    loaded = model if isinstance(model, Model) else load(model)
    _check(loaded, steps, num, batch)
    judge = Judge(classifier or load_classifier(), data, num)

    def draw(count: int, labels: Tensor, first: int) -> Tensor:
        return sample(
            loaded, count, num=len(labels), labels=labels, seed=first, guidance=guidance, solver=solver
        )

    rows = tuple(judge.row(draw, count, seed=seed, batch=batch, progress=progress) for count in steps)
    name = "model" if isinstance(model, Model) else str(model)
    facts = (name, num, float(guidance), solver, seed)
    return Report(*facts, judge.classifier_accuracy, judge.real_accuracy, judge.real_distance, rows)


def _check(model: Model, steps: Sequence[int], num: int, batch: int) -> None:
    if model.shape != (1, SIZE, SIZE) or model.num_classes != CLASSES:
        raise ValueError(
            f"evaluate: model must draw (1, {SIZE}, {SIZE}) images of {CLASSES} classes, "
            f"got {model.shape} and {model.num_classes}"
        )
    if not steps or min(steps) < 1:
        raise ValueError(f"evaluate: steps must be one or more counts >= 1, got {list(steps)}")
    if num < CLASSES or num % CLASSES:
        raise ValueError(f"evaluate: num must be a multiple of {CLASSES}, at least {CLASSES}, got {num}")
    if batch < 1:
        raise ValueError(f"evaluate: batch must be >= 1, got {batch}")


class Judge:
    """The yardstick: a classifier, the real test images in its feature space, and as many real training images.

    Args:
        classifier: The judge.
        data: The real images.
        num: Images per row; the first num / 10 training images of each class make the real row.
    """

    def __init__(self, classifier: Classifier, data: str | Path, num: int) -> None:
        self.classifier, self.num = classifier, num
        images, labels = real_images(data, "test")
        classes, features = predict(classifier, images)
        self.classifier_accuracy = _agreement(classes, labels)
        self.test_moments = moments(features)
        images, labels = _balanced(*real_images(data, "train"), num)
        classes, features = predict(classifier, images)
        self.real_accuracy = _agreement(classes, labels)
        self.real_distance = self.distance(features)

    def distance(self, features: np.ndarray) -> float:
        """Frechet distance of features (N, 64) to those of the real test images."""
        return gaussian_distance(*moments(features), *self.test_moments)

    def row(self, draw: Draw, steps: int, *, seed: int, batch: int, progress: Progress | None = None) -> Row:
        """Draw `num` images with `steps` steps and judge them; image i has class i modulo 10 and seed `seed` + i."""
        labels = torch.arange(self.num) % CLASSES
        classes, features, started = [], [], time.perf_counter()
        for first in range(0, self.num, batch):
            images = draw(steps, labels[first : first + batch], seed + first).cpu()
            found, part = predict(self.classifier, images)
            classes.append(found)
            features.append(part)
            if progress is not None:
                progress(steps, first + len(images), self.num)
        seconds = time.perf_counter() - started
        right = np.concatenate(classes) == labels.numpy()
        per_class = tuple(float(right[labels.numpy() == c].mean()) for c in range(CLASSES))
        distance = self.distance(np.concatenate(features))
        return Row(steps, float(right.mean()), distance, distance / self.real_distance, per_class, seconds)


def _agreement(classes: np.ndarray, labels: Tensor) -> float:
    return float((classes == labels.numpy()).mean())


def _balanced(images: Tensor, labels: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The first num / 10 images of each class."""
    each = num // CLASSES
    index = torch.cat([(labels == c).nonzero().flatten()[:each] for c in range(CLASSES)])
    if len(index) != num:
        raise ValueError(
            f"evaluate: num must be at most {len(index)}, the real images of the data, got {num}"
        )
    return images[index], labels[index]
