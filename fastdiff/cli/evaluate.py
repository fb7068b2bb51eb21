"""`fastdiff eval`: class accuracy and Frechet distance of a garment model's images."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class EvalOptions:
    """Judge the images of a class-conditional garment model against the real test images.

    A small classifier, trained on the real training images, says how many of the images show the class they were drawn
    for. The Frechet distance compares its 64 features of the drawn images with those of the real test images; the
    report also gives that distance for equally many real training images.

    Examples:
        fastdiff eval --model fashion --json-out report.json

        fastdiff eval --model runs/mine/model --steps 50 --num 500 --guidance 1.5

        fastdiff eval --train-classifier runs/classifier
    """

    model: str = "fashion"
    """Name of a shipped model, or a folder with config.json and model.safetensors."""
    steps: tuple[int, ...] = (10, 20, 50, 100)
    """Numbers of steps; the report has a row for each."""
    num: int = 2000
    """Images per row, the same number of each class."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1 is none."""
    solver: str = "ddim"
    """Name of the solver."""
    seed: int = 0
    """Seed of the first image."""
    batch: int = 100
    """Images drawn at a time."""
    data: str = "fashion-mnist"
    """The real images: a known name, or a folder of IDX files."""
    classifier: Path | None = None
    """Folder of a classifier; by default the shipped one."""
    train_classifier: Path | None = None
    """Instead of evaluating a model, train a classifier and write it to this folder."""
    epochs: int = 8
    """With --train-classifier: epochs."""
    json: bool = False
    """Print the report as JSON instead of a table."""
    json_out: Path | None = None
    """Also write the report to this JSON file."""
    progress: bool = True
    """Show a progress bar when the output is a terminal."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    from fastdiff.cli.options import parse

    options = parse(EvalOptions, arguments, "eval")
    if options.train_classifier is not None:
        return _train(options, options.train_classifier)
    _judge(options)
    return 0


def _train(options: EvalOptions, folder: Path) -> int:
    from fastdiff.evaluation import make_classifier

    def told(epoch: int, loss: float) -> None:
        print(f"epoch {epoch + 1}/{options.epochs}: loss {loss:.4f}", file=sys.stderr, flush=True)

    progress = told if options.progress else None
    accuracy = make_classifier(
        options.data, folder, epochs=options.epochs, seed=options.seed, progress=progress
    )
    print(f"wrote {folder}: {accuracy:.2%} of the real test images right")
    return 0


def _judge(options: EvalOptions) -> None:
    from fastdiff.cli.files import replacing
    from fastdiff.evaluation import evaluate, load_classifier

    report = evaluate(
        options.model,
        steps=options.steps,
        num=options.num,
        guidance=options.guidance,
        solver=options.solver,
        seed=options.seed,
        batch=options.batch,
        data=options.data,
        classifier=None if options.classifier is None else load_classifier(options.classifier),
        progress=_Bar() if options.progress and sys.stderr.isatty() else None,
    )
    text = json.dumps(report.to_dict(), indent=2)
    if options.json_out is not None:
        with replacing(options.json_out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(text if options.json else report.as_text())


class _Bar:
    """One progress bar for each row of the report."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, steps: int, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, unit="image", desc=f"{steps} steps", leave=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()
            self.bar = None
