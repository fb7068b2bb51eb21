"""The small classifier that judges generated garments: ten classes, and 64 features for distances.

Four convolutions with batch norm over 32x32 grey images, global mean, one linear layer: 0.17 M weights, trained on the
real training images in a few minutes on a CPU. Its file is kept in `fastdiff/assets/fashion_classifier/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 64
CLASSES = 10
SIZE = 32
#: Called after each epoch with (epoch, mean loss).
Progress = Callable[[int, float], None]


class Classifier(nn.Module):
    """Grey images (B, 1, 32, 32) in [-1, 1] to features (B, 64) and logits (B, 10)."""

    def __init__(self, width: int = FEATURES, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            _block(1, width // 2, kernel=5, stride=2),
            _block(width // 2, width, kernel=3, stride=1),
            _block(width, 2 * width, kernel=3, stride=2),
            _block(2 * width, width, kernel=3, stride=2),
        )
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Means over the last activation map, (B, 64)."""
        check_images(images, "Classifier")
        return self.blocks(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return self.head(self.features(images))


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def check_images(images: Tensor, place: str) -> None:
    """Raise unless `images` is a finite floating-point batch (B, 1, 32, 32)."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(f"{place}: images must be a floating-point tensor, got {_kind(images)}")
    if images.ndim != 4 or tuple(images.shape[1:]) != (1, SIZE, SIZE):
        raise ValueError(f"{place}: images must have shape (B, 1, {SIZE}, {SIZE}), got {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"{place}: images must be finite, got NaN or infinity")


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


@torch.no_grad()
def predict(classifier: Classifier, images: Tensor, *, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Classes and features of a set of images.

    Args:
        classifier: Used in evaluation mode.
        images: (N, 1, 32, 32) in [-1, 1].
        batch: Images per pass.

    Returns:
        classes (N,) int64 and features (N, 64) float64.
    """
    classifier.eval()
    features = [classifier.features(part.float()) for part in images.split(batch)]
    classes = [classifier.head(part).argmax(1) for part in features]
    return torch.cat(classes).numpy(), torch.cat(features).double().numpy()


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 8,
    batch: int = 128,
    rate: float = 4e-3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Classifier:
    """A classifier trained with AdamW, one-cycle rate, label smoothing and shifts of up to one pixel.

    Args:
        images: (N, 1, 32, 32) in [-1, 1].
        labels: (N,) int64 in 0..9.
        epochs: Passes over the images.
        batch: Images per update.
        rate: Highest learning rate.
        seed: Of the weights, the order and the shifts; equal seeds give equal weights on one machine.
        progress: Called after each epoch with (epoch, mean loss).

    Returns:
        The classifier in evaluation mode.
    """
    check_images(images, "train_classifier")
    _check_labels(labels, len(images))
    if epochs < 1 or batch < 2:
        raise ValueError(f"train_classifier: epochs must be >= 1 and batch >= 2, got {epochs} and {batch}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier()
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=1e-2)
    updates = max(10, epochs * -(-len(images) // batch))  # fewer have no room for a rise and a fall
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=updates, pct_start=0.2)
    classifier.train()
    for epoch in range(epochs):
        losses = []
        for part, wanted in _shuffled(images, labels, batch, generator):
            part = part.contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(classifier(part), wanted, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            losses.append(loss.item())
        if progress is not None:
            progress(epoch, float(np.mean(losses)))
    return classifier.eval()


def _check_labels(labels: Tensor, count: int) -> None:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise ValueError(
            f"train_classifier: labels must be int64 of shape ({count},), got {labels.dtype} {tuple(labels.shape)}"
        )
    if count == 0 or int(labels.min()) < 0 or int(labels.max()) >= CLASSES:
        raise ValueError(f"train_classifier: labels must be in 0..{CLASSES - 1} and not empty, got others")


def _shuffled(
    images: Tensor, labels: Tensor, batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(images), generator=generator)
    for index in order.split(batch):
        if len(index) > 1:  # batch norm has no variance of one image
            yield _augment(images[index], generator), labels[index]


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """The whole batch shifted by -1, 0 or 1 pixels in both directions; not mirrored, as shoes all point one way."""
    down, right = (int(v) for v in torch.randint(-1, 2, (2,), generator=generator))
    return images.roll((down, right), (2, 3))
