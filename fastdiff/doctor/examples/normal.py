"""Examples of `normal`: every stream, a row per sample, sizes that are not multiples of four."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from fastdiff.ops.philox import Stream

from . import Arguments, Example


def _arguments(batch: int, shape: tuple[int, ...], stream: int, rows: bool) -> Arguments:
    seeds = torch.arange(batch) * 7919 + 2**40 - 3
    row = torch.arange(batch) * 5 + 2**31 if rows else 2**32 - 1
    return {"seeds": seeds, "shape": shape, "stream": stream, "row": row}


def examples() -> Iterator[Example]:
    """Small ones of every stream, and the noise of real models."""
    for stream in Stream:
        name = f"5x3x7x9 {stream.name.lower()}"
        yield Example(name, partial(_arguments, 5, (3, 7, 9), int(stream), stream % 2 == 0))
    yield Example("3x1", partial(_arguments, 3, (1,), 0, True))
    yield Example("0x3x4", partial(_arguments, 0, (3, 4), 0, True))
    for batch, shape in ((64, (3, 32, 32)), (16, (3, 256, 256))):
        name = "x".join(map(str, (batch, *shape)))
        yield Example(name, partial(_arguments, batch, shape, int(Stream.INITIAL), False), timed=True)
