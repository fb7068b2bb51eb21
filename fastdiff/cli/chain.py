"""The denoising chain of a run's first images, as a strip and an animation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Chain:
    """The denoising chain of the first images: a strip of a few images, and an animation of the grid."""

    IMAGES, STATES, FRAMES = 8, 12, 60

    def __init__(self, base: Path, scale: int | None, columns: int | None) -> None:
        """Pictures are called BASE_strip.png and BASE.gif; scale and columns are those of the grid."""
        self.base, self.scale, self.columns = base, scale, columns
        self.states: np.ndarray | None = None

    def keep(self, states: Tensor) -> None:
        """Take states (rows + 1, B, C, H, W), at most FRAMES of them, evenly and with both ends."""
        from fastdiff.cli.images import to_uint8

        chosen = _evenly(len(states), self.FRAMES)
        self.states = np.stack([to_uint8(states[k]) for k in chosen])

    def write(self) -> list[Path]:
        """Write strip and GIF; returns their names."""
        from fastdiff.cli import images

        if self.states is None:
            return []
        strip, gif = (self.base.with_name(self.base.name + end) for end in ("_strip.png", ".gif"))
        rows = self.states[_evenly(len(self.states), self.STATES), : self.IMAGES].swapaxes(0, 1)
        images.save_png(
            strip,
            images.grid(images.for_people(rows.reshape(-1, *rows.shape[2:]), self.scale), rows.shape[1]),
        )
        columns = self.columns or images.grid_columns(self.states.shape[1], 0)
        images.save_gif(
            gif, [images.grid(images.for_people(state, self.scale), columns) for state in self.states]
        )
        return [strip, gif]


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` indices of `count`, evenly spread, first and last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()})
