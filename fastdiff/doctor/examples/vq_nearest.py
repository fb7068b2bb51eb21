"""Examples of `vq_nearest`, and its own judgement: of two codes at almost the same distance either is right."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from fastdiff.doctor.judge import Verdict, floating

from . import FLOATS, Arguments, Example, normals, short

_SMALL = [(37, 5, 3), (130, 100, 17), (64, 513, 64), (0, 7, 4)]
_REAL = [(16384, 512, 64), (4096, 8192, 32)]


def _arguments(rows: int, codes: int, width: int, dtype: torch.dtype) -> Arguments:
    wanted = dict.fromkeys(("return_quantised", "return_distance", "return_counts"), True)
    z = normals(rows, width, rows, dtype=dtype).T
    return {"z": z, "codebook": normals(codes, codes, width, dtype=dtype), **wanted}


def examples() -> Iterator[Example]:
    """Small odd ones, and codebooks of real models."""
    for timed, sizes in ((False, _SMALL), (True, _REAL)):
        for rows, codes, width in sizes:
            for dtype in FLOATS:
                make = partial(_arguments, rows, codes, width, dtype)
                yield Example(f"{rows}x{codes}x{width} {short(dtype)}", make, timed=timed)


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """The code chosen may be farther than the nearest by float32's rounding; the rest has to belong to it."""
    z, codebook = (arguments[name].double().cpu() for name in ("z", "codebook"))
    rows, index = z.reshape(-1, z.shape[-1]), ours.indices.cpu().reshape(-1)
    of_plain = (rows - codebook[plain.indices.cpu().reshape(-1)]).square().sum(1).float()
    if not bool(of_plain.isfinite().all()):  # no distance fits float32
        return [Verdict("indices", float((ours.indices != plain.indices).sum()), 0.0)]
    if not bool(((index >= 0) & (index < len(codebook))).all()):
        return [Verdict("indices", float("inf"), 0.0)]
    gap = (rows - codebook[index]).square().sum(1) - (
        rows - codebook[exact.indices.reshape(-1)]
    ).square().sum(1)
    scale = rows.square().sum(1) + codebook.square().sum(1).max()
    rounding = torch.finfo(torch.float32).eps * max(2.0, z.shape[-1] ** 0.5)
    far = float((gap / scale).nan_to_num(nan=0.0).max()) if len(gap) else 0.0
    verdicts = [Verdict("indices", far, rounding)]
    if ours.distance is not None:
        true = (rows - codebook[index]).square().sum(1)
        of_index = plain.distance.reshape(-1).where(index == plain.indices.reshape(-1), true.float())
        told = (ours.distance.cpu().reshape(-1), of_index, true)
        verdicts.append(floating("distance", *told, 2.0))
    if ours.quantised is not None:
        code, got = arguments["codebook"].cpu()[index], ours.quantised.cpu().reshape(-1, z.shape[-1])
        wrong = (code != got) & ~(code.isnan() & got.isnan())
        verdicts.append(Verdict("quantised", float(wrong.sum()), 0.0))
    if ours.counts is not None:
        counts = torch.bincount(index, minlength=len(codebook))
        verdicts.append(Verdict("counts", float((counts != ours.counts.cpu()).sum()), 0.0))
    return verdicts
