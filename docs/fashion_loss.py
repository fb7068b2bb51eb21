"""Draw docs/img/fashion_loss.png from the logs of both runs: `python docs/fashion_loss.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fastdiff.training.logs import read_log

HERE = Path(__file__).parent
RUNS = {
    "first run: v, min-SNR 5": "fashion_log.jsonl",
    "second run: v, uniform weights": "fashion_log_2.jsonl",
}


def main() -> None:
    """Loss by step, and the learning rate below it, a column for each run (their losses are weighted differently)."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.5), sharex="col", height_ratios=(3, 1))
    for (top, bottom), (title, name) in zip(axes.T, RUNS.items(), strict=True):
        lines = read_log(HERE / name)
        steps = [line["step"] for line in lines]
        top.plot(steps, [line["loss"] for line in lines], color="#2a6f97", linewidth=1)
        top.set_title(title, fontsize=9)
        top.set_yscale("log")
        bottom.plot(steps, [line["lr"] for line in lines], color="#555555", linewidth=1)
        bottom.set_xlabel("step (64 images each)")
        for axis in (top, bottom):
            axis.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("learning rate")
    figure.tight_layout()
    figure.savefig(HERE / "img" / "fashion_loss.png", dpi=110)


if __name__ == "__main__":
    main()
