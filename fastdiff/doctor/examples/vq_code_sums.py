"""Examples of `vq_code_sums`: few and many rows per code, codes without rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from . import FLOATS, Arguments, Example, normals, short

_SMALL = [(37, 5, 3), (130, 100, 17), (64, 513, 64), (0, 7, 4)]
_REAL = [(16384, 512, 64), (65536, 1024, 64)]


def _arguments(rows: int, codes: int, width: int, dtype: torch.dtype) -> Arguments:
    generator = torch.Generator().manual_seed(rows)
    index = torch.randint(0, codes, (rows,), generator=generator)
    return {"z": normals(rows, width, rows, dtype=dtype).T, "index": index, "codes": codes}


def examples() -> Iterator[Example]:
    """Small odd ones, and codebooks of real models."""
    for timed, sizes in ((False, _SMALL), (True, _REAL)):
        for rows, codes, width in sizes:
            for dtype in FLOATS:
                make = partial(_arguments, rows, codes, width, dtype)
                yield Example(f"{rows}x{codes}x{width} {short(dtype)}", make, timed=timed)
