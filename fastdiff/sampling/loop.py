"""The sampling loop: a single loop that executes any table.

Between the first and the last row, nothing is read back to the host: the table, which the host made, says what each row
does. The state is updated in place; buffers are allocated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fastdiff.ops import solver_step
from fastdiff.rng import Stream
from fastdiff.sampling.evaluator import Evaluator, split_variance
from fastdiff.sampling.noise import NoiseSource
from fastdiff.sampling.position import Position, host_positions
from fastdiff.sampling.reductions import Adaptation
from fastdiff.solvers.table import StepTable

#: Called after every evaluation with (step, t, x, x0); a true answer stops the run. The tensors are buffers: clone
#: what is to be kept.
Callback = Callable[[int, float, Tensor, Tensor], object]

#: Below every alpha of a row that leads to a noised image.
_TINY = 1e-20


@dataclass(frozen=True)
class Region:
    """A known part of the image.

    Args:
        known: (B, ...) the known image.
        mask: (B, ...) 1 where it is known, 0 where it is to be drawn.
    """

    known: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Run:
    """Everything one run of the loop needs besides the state.

    Args:
        table: The rows.
        evaluate: The network.
        noise: Where noise comes from.
        cond: (B, ...) conditioning image the rows use, or None.
        region: Known part of the image, or None.
        self_condition: The network gets its previous estimate of x0.
        adapt: Columns per sample that depend on the outputs, or None.
        callback: See `Callback`.
        trajectory: Keep every state.
        progress: Show a progress bar.
    """

    table: StepTable
    evaluate: Evaluator
    noise: NoiseSource
    cond: Tensor | None = None
    region: Region | None = None
    self_condition: bool = False
    adapt: Adaptation | None = None
    callback: Callback | None = None
    trajectory: bool = False
    progress: bool = False


class Rows(Protocol):
    """Carries out the rows of a run in order; `buffers` holds the state after each."""

    @property
    def buffers(self) -> Buffers: ...  # noqa: D102

    def advance(self) -> None:
        """The next row."""


class Buffers(NamedTuple):
    """What the rows of a run read and write in place.

    Args:
        rows: (R, WIDTH) the table.
        x: (B, ...) the state.
        x0: (B, ...) the latest estimate of the clean image.
        history: (K, B, ...) ring of earlier tensors, or None.
    """

    rows: Tensor
    x: Tensor
    x0: Tensor
    history: Tensor | None


def make_buffers(table: StepTable, x: Tensor) -> Buffers:
    """Buffers of a run that starts from a copy of x (B, ...)."""
    history = x.new_zeros((table.history, *x.shape)) if table.history else None
    state = x.clone(memory_format=torch.contiguous_format)
    return Buffers(table.tensor(x.device, x.dtype), state, torch.zeros_like(state), history)


class Direct:
    """Carries rows out one by one, as the host says them.

    Args:
        task: The run.
        x: (B, ...) initial state.
    """

    def __init__(self, task: Run, x: Tensor) -> None:
        self._task, self.buffers = task, make_buffers(task.table, x)
        self._positions = host_positions(task.table, x)

    def advance(self) -> None:
        """The next row."""
        advance(self._task, self.buffers, next(self._positions))


def run(task: Run, x: Tensor, rows: Rows | None = None) -> Tensor:
    """Carry out all rows from the initial state.

    Args:
        task: What to do.
        x: (B, ...) initial state, float32 (float64 for tests of order).
        rows: What carries them out from x; by default one after the other, as they are.

    Returns:
        (B, ...) the last state, or (rows + 1, B, ...) all of them. When a callback stops the run early: the estimate
        of x0 at that row, or the states so far.
    """
    table, carried = task.table, Direct(task, x) if rows is None else rows
    state = carried.buffers.x
    chain = x.new_empty((len(table) + 1, *x.shape)) if task.trajectory else None
    if chain is not None:
        chain[0].copy_(x)
    evaluates, times = (table["eval"] == 1).tolist(), table["t"].tolist()
    for k in _counted(task):
        carried.advance()
        if chain is not None:
            chain[k + 1].copy_(state)
        if evaluates[k] and task.callback is not None:
            stop = task.callback(k, times[k], state, carried.buffers.x0)
            if state.shape != x.shape:
                raise ValueError(f"sample: callback must leave x {tuple(x.shape)}, got {tuple(state.shape)}")
            if stop:
                return carried.buffers.x0 if chain is None else chain[: k + 2]
    return state if chain is None else chain


def advance(task: Run, buffers: Buffers, at: Position) -> None:
    """One row: the network where it has an evaluation, then the fused step, in place."""
    given = _outputs(task, buffers, at) if at.kind.evaluates else {}
    given.update(_noise(task, at, buffers.x))
    solver_step(
        buffers.rows, at.row, buffers.x, **given, cond=task.cond, history=buffers.history, out=buffers.x
    )


def _outputs(task: Run, buffers: Buffers, at: Position) -> dict[str, Tensor | None]:
    """What the network says in a row, and where the row's estimate of x0 goes."""
    x, told = buffers.x, buffers.x0 if task.self_condition else None
    scale = at.value("c_in") if at.kind.scaled else 1.0
    m, m_u = task.evaluate(x, at.t, told, guided=at.kind.guided, scale=scale)
    mean, variance = split_variance(m, x.shape[1], x.dtype)
    other = None if m_u is None else split_variance(m_u, x.shape[1], x.dtype)[0]
    given = {"m": mean, "m_u": other, "v": variance, "x0_out": buffers.x0}
    columns = None if task.adapt is None else task.adapt(at, x, mean, other)
    if columns is None:
        return given
    return {**given, "per_sample": columns, "m_u": mean if other is None else other}


def _noise(task: Run, at: Position, x: Tensor) -> dict[str, Tensor | None]:
    """The noise and known region of a row; with philox noise the step makes what it needs from the seeds."""
    region = task.region
    given: dict[str, Tensor | None] = {}
    if region is not None:
        given = {"known": _known(task, region, at), "mask": region.mask}
    if task.noise.inside:
        return {**given, "seeds": task.noise.seeds}
    row = int(at.value("noise_row"))
    if at.value("s") != 0:
        given["noise"] = task.noise.row(Stream(int(at.value("stream"))), row, x)
    if region is not None and at.value("i_s") != 0:
        given["known_noise"] = task.noise.row(Stream.KNOWN, row, x)
    return given


def _known(task: Run, region: Region, at: Position) -> Tensor:
    """The known image of a row; among states that gather around cond it is drawn to cond as they are."""
    if not at.kind.anchored or task.cond is None:
        return region.known
    alpha = at.value("i_y")
    least = alpha.clamp(min=_TINY) if isinstance(alpha, Tensor) else max(alpha, _TINY)
    return region.known + (1.0 - alpha) / least * task.cond


def _counted(task: Run) -> Iterable[int]:
    if not task.progress:
        return range(len(task.table))
    from tqdm.auto import tqdm

    return tqdm(range(len(task.table)), desc=task.table.solver, leave=False)
