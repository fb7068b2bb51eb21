"""Examples of `conv3x3`: every algorithm with everything around it, and the judgement that Winograd's form gets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastdiff.doctor.judge import FEW, Verdict, tensors
from fastdiff.ops.conv3x3 import NormFactors, choose, pack
from fastdiff.ops.conv3x3_weights import ALGORITHMS

from . import Arguments, Example, normals

#: batch, input channels, output channels, height, width
_SMALL = [(2, 16, 16, 7, 9), (1, 20, 33, 4, 4), (3, 64, 48, 16, 16), (1, 1, 1, 1, 1), (0, 16, 16, 4, 4)]
_REAL = [(4, 128, 128, 32, 32), (4, 256, 256, 16, 16), (4, 64, 64, 64, 64), (1, 128, 128, 32, 32)]


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _plain(size: tuple[int, int, int, int, int], algorithm: str) -> Arguments:
    batch, channels, outs, height, width = size
    weight = normals(1, outs, channels, 3, 3) / (9 * channels) ** 0.5
    x = _last(normals(0, batch, channels, height, width))
    return {"x": x, "weight": pack(weight, algorithm), "bias": normals(2, outs)}


def _full(size: tuple[int, int, int, int, int], algorithm: str, upsample: bool) -> Arguments:
    batch, channels, outs, height, width = size
    scale = 2 if upsample else 1
    weight = normals(1, outs, channels + 5, 3, 3) / (9 * channels) ** 0.5
    norm = NormFactors(normals(3, batch, 2, channels + 5), normals(4, batch, height, width).abs())
    return _plain(size, "direct") | {
        **{"weight": pack(weight, algorithm), "x2": _last(normals(5, batch, 5, height, width)), "norm": norm},
        **{"activate": True, "upsample": upsample, "add": normals(6, batch, outs), "gain": 0.7},
        **{"residual": _last(normals(7, batch, outs, height * scale, width * scale)), "statistics": True},
    }


def examples() -> Iterator[Example]:
    """Every algorithm on small odd maps, alone and with everything; layers of real models."""
    for size in _SMALL:
        for algorithm in ALGORITHMS:
            name = f"{'x'.join(map(str, size))} {algorithm}"
            yield Example(name, partial(_plain, size, algorithm))
            yield Example(f"{name}, everything", partial(_full, size, algorithm, False))
            yield Example(f"{name}, everything, doubled", partial(_full, size, algorithm, True))
    for size in _REAL:
        algorithm = choose(*size)
        yield Example(f"{'x'.join(map(str, size))} {algorithm}", partial(_plain, size, algorithm), timed=True)


def _whole(statistics: Tensor) -> dict[str, Tensor]:
    """Count, mean and squares of every channel: how a map is cut into stretches depends on the algorithm."""
    count, mean, squares = statistics.double().unbind(2)
    total = count.sum(1)
    joined = (count * mean).sum(1) / total
    between = (count * (mean - joined.unsqueeze(1)).square()).sum(1)
    squares = squares.sum(1) + between
    return {"count": total, "mean": joined, "deviation": (squares / total).sqrt() + joined.abs()}


def _parts(result: Any) -> dict[str, Tensor]:
    out, statistics = result if isinstance(result, tuple) else (result, None)
    parts = {"out": out.detach().cpu().double()}
    return parts if statistics is None or not out.numel() else parts | _whole(statistics.cpu())


def compare(arguments: Arguments, ours: Any, plain: Any, exact: Any) -> list[Verdict]:
    """Four times torch's error in root mean square, and 1e-4 of the largest value; counts are equal.

    Of few numbers torch may happen to be exact: there the floor is higher. Squares too small for float32 are lost by
    torch, too. Means may lie near zero: their unit is the size of what they are of.
    """
    mine, torchs, true = _parts(ours), _parts(plain), dict(tensors(_parts(exact)))
    if mine["out"].shape != true["out"].shape or mine.keys() != true.keys():
        return [Verdict("shapes or results", float("inf"), 0.0)]
    like = true | {"mean": true["deviation"]} if "mean" in true else true
    return [one for name in true for one in _judged(name, mine[name], torchs[name], true[name], like[name])]


def _judged(name: str, ours: Tensor, plain: Tensor, exact: Tensor, like: Tensor) -> list[Verdict]:
    if exact.numel() == 0 or not (exact.isfinite().all() and plain.isfinite().all()):
        return []  # Winograd's form spreads a NaN or infinity over a tile
    largest, typical = float(like.abs().max()) or 1.0, float(like.square().mean().sqrt()) or 1.0
    error = (ours - exact).abs().nan_to_num(nan=float("inf"))
    own = (plain - exact).square().mean().sqrt().item()
    rms = float(error.square().mean().sqrt())
    floor = (8 if exact.numel() >= FEW else 32) * torch.finfo(torch.float32).eps
    most = max(1e-4, 4 * float((plain - exact).abs().max()) / largest)
    return [
        Verdict(f"{name} (root mean square)", rms / typical, 4 * own / typical + floor),
        Verdict(f"{name} (largest)", float(error.max()) / largest, most),
    ]
