"""The noise of a sampling run: by seed, from a generator, a function or a tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Stream

#: "philox", "torch", "shared" (philox of the first seed for all samples, see `sample`),
#: a generator, a function (stream, row, like) -> (B, ...), or the numbers themselves.
NoiseChoice = str | torch.Generator | Callable[[Stream, int, Tensor], Tensor] | Tensor


class NoiseSource:
    """Noise by stream and row.

    Args:
        choice: "philox": made from the seeds, inside the fused step (the only one that does not depend on the
            batch). "torch": `torch.randn` from one generator seeded with the first seed. A `torch.Generator`
            likewise. A function (stream, row, like) -> noise shaped like `like`. A tensor (B, ...): the initial
            noise alone; (N, B, ...): the initial noise, then one for each noise row of the table.
        seeds: (B,) int64 tensor.

    Raises:
        TypeError, ValueError: for something else.
    """

    def __init__(self, choice: NoiseChoice, seeds: Tensor) -> None:
        self.seeds = seeds
        self._generator: torch.Generator | None = None
        self._draw: Callable[[Stream, int, Tensor], Tensor] | None = None
        if isinstance(choice, str):
            self._choose(choice)
        elif isinstance(choice, torch.Generator):
            self._generator = choice
        elif isinstance(choice, Tensor):
            self._draw = _Numbers(choice)
        elif callable(choice):
            self._draw = choice
        else:
            raise TypeError(
                f"noise: noise must be a name, generator, function or tensor, got {type(choice).__name__}"
            )

    def _choose(self, name: str) -> None:
        if name not in ("philox", "torch"):
            raise ValueError(
                f"noise: noise must be 'philox', 'shared', 'torch', a generator, function or tensor, got {name!r}"
            )
        if name == "torch":
            self._generator = torch.Generator(self.seeds.device).manual_seed(int(self.seeds[0]))

    @property
    def inside(self) -> bool:
        """True when the fused step makes the noise itself from the seeds."""
        return self._generator is None and self._draw is None

    def initial(self, like: Tensor) -> Tensor:
        """Noise of the initial state, shaped like `like` (B, ...)."""
        if self.inside:
            return rng.normal(self.seeds, like.shape[1:], stream=Stream.INITIAL, dtype=like.dtype)
        return self.row(Stream.INITIAL, 0, like)

    def row(self, stream: Stream, row: int, like: Tensor) -> Tensor:
        """Noise of one row, when it is not made inside."""
        if self._generator is not None:
            device = self._generator.device
            return torch.randn(like.shape, generator=self._generator, dtype=like.dtype, device=device).to(
                like.device
            )
        if self._draw is None:
            return rng.normal(self.seeds, like.shape[1:], row=row, stream=stream, dtype=like.dtype)
        noise = self._draw(stream, row, like)
        if not isinstance(noise, Tensor) or noise.shape != like.shape:
            shape = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            raise ValueError(f"noise: noise must have the shape {tuple(like.shape)}, got {shape}")
        return noise.to(like).contiguous()


class _Numbers:
    """Noise that was given as a tensor."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    def __call__(self, stream: Stream, row: int, like: Tensor) -> Tensor:
        if self.numbers.ndim == like.ndim and stream == Stream.INITIAL:
            return self.numbers
        index = 0 if stream == Stream.INITIAL else row + 1
        if self.numbers.ndim != like.ndim + 1 or index >= len(self.numbers):
            raise ValueError(
                f"noise: noise must have an entry {index} of shape {tuple(like.shape)} for {stream.name} noise of row "
                f"{row}, got {tuple(self.numbers.shape)}"
            )
        return self.numbers[index]
