"""Paths between two inputs: images, or the seeds that images are drawn from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Stream
from fastdiff.sampling.sample import sample
from fastdiff.sampling.source import ModelChoice


def interpolate(
    model: ModelChoice,
    first: Tensor | int,
    second: Tensor | int,
    steps: int = 50,
    *,
    num: int = 8,
    start: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Tensor:
    """`num` samples on the way from `first` to `second`, evenly spread and with both ends.

    Two images are mixed, noised with the same noise to the level of row `start` and denoised from there (Ho et al.
    2020, figure 8). Two seeds have their initial noise mixed, kept at unit variance; any noise of the solver is shared.

    Args:
        model: As in `sample`.
        first: An image (C, H, W) in the data's range, or a seed.
        second: The same kind.
        steps: As in `sample`.
        num: Samples, >= 2.
        start: With images: the row to start at; more keeps them better. Half of `steps` by default.
        seed: Of the noise that all samples share.
        **options: The other arguments of `sample`, but for those of noise, x_init and mask.

    Returns:
        (num, C, H, W).

    Raises:
        TypeError, ValueError: for an argument that does not fit.
    """
    if num < 2:
        raise ValueError(f"interpolate: num must be >= 2, got {num}")
    weights = torch.linspace(0.0, 1.0, num)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape:
            raise ValueError(
                f"interpolate: both images must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
            )
        parts = weights.to(first).reshape(-1, *(1,) * first.ndim)
        mixed = (1 - parts) * first + parts * second.to(first)
        row = steps // 2 if start is None else start
        return sample(model, steps, num=num, x_init=mixed, start=row, noise="shared", seed=seed, **options)
    if not (_is_seed(first) and _is_seed(second)) or start is not None:
        raise TypeError(
            "interpolate: first and second must be two images, or two seeds without start, got others"
        )
    ends = (int(first), int(second))

    def noise(stream: Stream, row: int, like: Tensor) -> Tensor:
        place: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        if stream != Stream.INITIAL:
            return rng.normal([seed], like.shape[1:], row=row, stream=stream, **place).expand_as(like)
        a, b = (rng.normal([end], like.shape[1:], **place) for end in ends)
        w = weights.to(like).reshape(-1, *(1,) * (like.ndim - 1))
        return ((1 - w) * a + w * b) / ((1 - w) ** 2 + w**2).sqrt()

    return sample(model, steps, num=num, noise=noise, **options)


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
