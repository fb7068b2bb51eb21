"""The log of a run: JSON lines, a progress bar or lines where there is no terminal, TensorBoard events on request."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from fastdiff.training.config import RunConfig


class RunLog:
    """Writes `log.jsonl` in the folder of the run; lines after `start` (of a run that was killed) are removed.

    Args:
        config: the run.
        start: steps already finished.
    """

    def __init__(self, config: RunConfig, start: int) -> None:
        self.config = config
        config.folder.mkdir(parents=True, exist_ok=True)
        self.path = config.folder / "log.jsonl"
        _cut_after(self.path, start)
        self._bar = _progress_bar(config, start)
        self._board = _tensorboard(config) if config.tensorboard else None
        self._mark = (time.perf_counter(), start)

    def step(self, step: int, loss: float, facts: dict[str, float]) -> None:
        """One line: loss averaged since the last line, images per second, and `facts`."""
        now = time.perf_counter()
        images = (step - self._mark[1]) * self.config.batch_size
        line = {"step": step, "loss": loss, "images_per_s": images / (now - self._mark[0]), **facts}
        self._mark = (now, step)
        self.write(line)
        if self._bar is None:
            return
        if self._bar.disable:  # no terminal, so nothing moves: a line instead
            told = f"step {step} of {self.config.steps}: loss {loss:.4f}, {line['images_per_s']:.0f} images/s"
            sys.stderr.write(f"{told}\n")
        else:
            self._bar.set_postfix(loss=f"{loss:.4f}", img_s=f"{line['images_per_s']:.0f}")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line with the time of day."""
        rounded = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in line.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({**rounded, "time": round(time.time(), 1)}) + "\n")
        if self._board is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, line["step"])

    def tick(self) -> None:
        """Advance the progress bar by a step."""
        if self._bar is not None:
            self._bar.update(1)

    def close(self) -> None:
        """Close the bar and the event file."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that was cut short is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _cut_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_log(path) if line.get("step", 0) <= step]
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(partial, path)


def _progress_bar(config: RunConfig, start: int) -> Any:
    if not config.progress:
        return None
    from tqdm import tqdm

    return tqdm(total=config.steps, initial=start, disable=None, unit="step", smoothing=0.05)


def _tensorboard(config: RunConfig) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TrainConfig: tensorboard must be False where tensorboard is not installed"
        ) from error
    return SummaryWriter(str(config.folder / "tensorboard"))
