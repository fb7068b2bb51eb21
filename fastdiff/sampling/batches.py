"""Many samples without holding them all in memory: one batch at a time, divided among processes."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from fastdiff.sampling.plan import Plan, plan
from fastdiff.sampling.sample import sample
from fastdiff.sampling.source import ModelChoice
from fastdiff.sampling.tables import Steps
from fastdiff.solvers import StepTable

Batch = tuple[list[int], Tensor]
_OF_ONE_CALL = ("callback", "trajectory")


def sample_batches(
    model: ModelChoice,
    steps: Steps = 50,
    *,
    num: int | None = None,
    batch_size: int = 64,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Any,
) -> Iterator[Batch]:
    """Draw exactly `num` samples in batches: the same images as one call of `sample`, one batch in memory at a time.

    Args:
        model: As in `sample`.
        steps: As in `sample`.
        num: Number of samples over all processes; 16, or as many as `seeds`.
        batch_size: Samples per batch; the last may be smaller.
        rank: Index of this process; None reads the environment variable RANK (default 0).
        world_size: Number of processes; None reads WORLD_SIZE (default 1). Each draws a consecutive part of the seeds.
        **options: Any other argument of `sample` except callback, trajectory and a noise tensor. Labels and images
            belong to the samples in the order of the seeds, whatever the batches and processes.

    Returns:
        An iterator of (seeds, images) with images (len(seeds), C, H, W). Arguments are checked immediately; images are
        drawn as the iterator advances.

    Raises:
        TypeError, ValueError: as `sample`.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"sample_batches: batch_size must be an integer >= 1, got {batch_size!r}")
    refused = [name for name in _OF_ONE_CALL if name in options]
    if isinstance(options.get("noise"), Tensor):
        refused.append("noise as a tensor")
    if refused:
        raise ValueError(f"sample_batches: {refused[0]} must be left out, got it; use sample")
    whole = _planned(model, steps, num=num, **options)
    return _batches(whole, share_of(len(whole.seeds), rank, world_size), batch_size)


def step_table(model: ModelChoice, steps: Steps = 50, **options: Any) -> StepTable:
    """The rows that `sample` would carry out with these arguments, guidance included, without drawing anything.

    `evaluations` of the answer counts the calls of the network, `branches` its outputs per sample (a guided call of two
    branches has two).
    """
    return _planned(model, steps, **options).table


def _planned(model: ModelChoice, steps: Steps, **options: Any) -> Plan:
    defaults = {p.name: p.default for p in inspect.signature(sample).parameters.values()}
    known = {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}
    return plan(**{**known, **options, "model": model, "steps": steps})


def _batches(whole: Plan, mine: range, batch_size: int) -> Iterator[Batch]:
    for first in range(mine.start, mine.stop, batch_size):
        piece = slice(first, min(first + batch_size, mine.stop))
        yield list(whole.seeds[piece]), whole.draw(piece)


def share_of(num: int, rank: int | None, world_size: int | None) -> range:
    """The consecutive part of `num` samples that belongs to this process; arguments as in `sample_batches`.

    Raises:
        ValueError: for a process that is not among the others.
    """
    size = int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size
    place = int(os.environ.get("RANK", 0)) if rank is None else rank
    if size < 1 or not 0 <= place < size:
        raise ValueError(f"sample_batches: rank must be in [0, world_size = {size}), got {place}")
    each, more = divmod(num, size)  # the first `more` processes draw one sample more
    first = place * each + min(place, more)
    return range(first, first + each + (place < more))
