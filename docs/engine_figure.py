"""Draw docs/img/engine.png, where a call of ddpm-cifar10 spends its time: `python docs/engine_figure.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PARTS = (
    "3x3 convolutions",
    "1x1 and linear",
    "attention",
    "factors of norms",
    "other steps",
    "beside the plan",
)
#: Milliseconds, measured as docs/lab/engine.md tells under "Tapes instead of calls".
CALLS = {
    "batch 1, step by step": (27.5, 6.8, 2.0, 2.4, 0.8, 4.6),
    "batch 1, tape": (22.1, 5.0, 2.1, 0.2, 0.8, 6.0),
}
COLOURS = ("#2a6f97", "#61a5c2", "#a9d6e5", "#f4a259", "#bc4b51", "#888888")


def main() -> None:
    """A bar for each call, cut into its parts."""
    figure, axis = plt.subplots(figsize=(8, 2.2))
    for row, times in enumerate(CALLS.values()):
        start = 0.0
        for part, time, colour in zip(PARTS, times, COLOURS, strict=True):
            axis.barh(row, time, left=start, color=colour, label=part if row == 0 else None)
            if time >= 1.5:
                axis.text(start + time / 2, row, f"{time:.1f}", ha="center", va="center", fontsize=8)
            start += time
        axis.text(start + 0.4, row, f"{start:.1f} ms", va="center", fontsize=8)
    axis.set_yticks(range(len(CALLS)), list(CALLS), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 50)
    axis.set_xlabel("ms")
    axis.legend(ncols=6, fontsize=6, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "img" / "engine.png", dpi=110)


if __name__ == "__main__":
    main()
