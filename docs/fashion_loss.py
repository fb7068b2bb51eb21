"""Draw docs/img/fashion_loss.png from docs/fashion_log.jsonl: `python docs/fashion_loss.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from fastdiff.training.logs import read_log

HERE = Path(__file__).parent


def main() -> None:
    """Loss over images seen, and the learning rate below it."""
    lines = read_log(HERE / "fashion_log.jsonl")
    steps = [line["step"] for line in lines]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4.5), sharex=True, height_ratios=(3, 1))
    top.plot(steps, [line["loss"] for line in lines], color="#2a6f97", linewidth=1)
    top.set_yscale("log")
    top.set_ylabel("loss (v, min-SNR 5)")
    top.grid(alpha=0.3, which="both")
    bottom.plot(steps, [line["lr"] for line in lines], color="#555555", linewidth=1)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step (64 images each)")
    bottom.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(HERE / "img" / "fashion_loss.png", dpi=110)


if __name__ == "__main__":
    main()
