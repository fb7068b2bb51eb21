"""Examples of `solver_step`: rows of the usual samplers, and one row that uses every column and tensor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from fastdiff.ops.philox import Stream
from fastdiff.ops.row import COEFFICIENTS, PER_SAMPLE, Push, make_row

from . import FLOATS, Arguments, Example, normals, short

_DDPM = {"u_x": 1.66, "u_m": -1.33, "lo": -1.0, "hi": 1.0, "b": 0.88, "a": 0.11, "s": 0.12}
_MULTISTEP = {"u_x": 1.66, "u_m": -1.33, "b": 0.88, "a": 0.16, "h_0": -0.05, "push_0": Push.X0}
_GUIDED = _DDPM | {"g_c": 1.5, "g_u": -0.5, "s": 0.0}
_SHAPES = [(5, 3, 7, 9), (2, 131), (0, 3, 4, 4)]
_REAL = [(64, 3, 32, 32), (16, 3, 256, 256)]


def _everything() -> dict[str, float]:
    weights = {name: 0.3 + 0.05 * k for k, name in enumerate(COEFFICIENTS)}
    pushes = {"push_0": Push.X, "push_0_slot": 3, "push_1": Push.EPS, "push_1_slot": 0}
    slots = {f"slot_{k}": k for k in range(3)}
    return weights | pushes | slots | {"lo": -1.0, "hi": 1.0, "stream": Stream.CHURN, "noise_row": 12}


def _table(columns: dict[str, float]) -> torch.Tensor:
    return torch.from_numpy(make_row(**columns)).float().unsqueeze(0)


def _state(shape: tuple[int, ...], dtype: torch.dtype, columns: dict[str, float]) -> Arguments:
    """x and what the row needs at least: the network's two outputs, seeds, a history."""
    m = normals(1, *shape, dtype=dtype)
    if len(shape) == 4:
        m = m.contiguous(memory_format=torch.channels_last)
    given = {"table": _table(columns), "row": 0, "x": normals(0, *shape), "m": m}
    given["seeds"] = torch.arange(shape[0]) * 7919 - 3
    if columns.get("g_u"):
        given["m_u"] = normals(2, *shape, dtype=dtype)
    if columns.get("h_0"):
        given["history"] = normals(3, 1, *shape)
    return given


def _full(shape: tuple[int, ...], dtype: torch.dtype) -> Arguments:
    given = _state(shape, dtype, _everything())
    given["history"] = normals(3, 4, *shape)
    for seed, name in enumerate(("v", "cond", "known"), 4):
        given[name] = torch.cat([normals(seed, *shape, dtype=dtype)] * 2, dim=-1)[..., : shape[-1]]
    mask = normals(7, shape[0], 1, *shape[2:]) > 0
    given |= {"mask": mask.float().expand(shape), "row": torch.tensor([0])}
    per_sample = 0.5 + 0.1 * normals(8, shape[0], len(PER_SAMPLE))
    given["per_sample"] = per_sample * torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    return given | {"x0_out": torch.zeros(shape)}


def examples() -> Iterator[Example]:
    """Every kind of row on small states; the usual rows on states of real models."""
    rows = {"DDPM": _DDPM, "multistep": _MULTISTEP, "guided": _GUIDED}
    for shape in _SHAPES:
        for dtype in FLOATS:
            size = f"{'x'.join(map(str, shape))}, outputs {short(dtype)}"
            for name, columns in rows.items():
                yield Example(f"{name} {size}", partial(_state, shape, dtype, columns), written=("history",))
            yield Example(f"everything {size}", partial(_full, shape, dtype), written=("history", "x0_out"))
    for shape in _REAL:
        for name, columns in rows.items():
            size = "x".join(map(str, shape))
            yield Example(
                f"{name} {size}",
                partial(_state, shape, torch.float32, columns),
                timed=True,
                written=("history",),
            )
