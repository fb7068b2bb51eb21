"""The sampling loop: the one loop that carries out every table.

Between the first and the last row nothing reads a tensor on the host: what a row does is known from the table, which
the host made. Buffers are allocated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastdiff.ops import solver_step
from fastdiff.rng import Stream
from fastdiff.sampling.evaluator import Evaluator, split_variance
from fastdiff.sampling.noise import NoiseSource
from fastdiff.sampling.reductions import Adaptation
from fastdiff.solvers.table import StepTable

#: Called after every evaluation with (step, t, x, x0); a true answer stops the run. The tensors are buffers: clone
#: what is to be kept.
Callback = Callable[[int, float, Tensor, Tensor], object]


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


class _States:
    """The states of a run: all of them when a trajectory is wanted, else two buffers that take turns."""

    def __init__(self, x: Tensor, rows: int, trajectory: bool) -> None:
        self._all = x.new_empty((rows + 1 if trajectory else 2, *x.shape))
        self._all[0].copy_(x)
        self._keep = trajectory

    def __getitem__(self, k: int) -> Tensor:
        return self._all[k if self._keep else k % 2]

    def until(self, k: int) -> Tensor:
        """State k, or all states up to it."""
        return self._all[: k + 1] if self._keep else self[k]


def run(plan: Run, x: Tensor) -> Tensor:
    """Carry out all rows from the initial state.

    Args:
        plan: What to do.
        x: (B, ...) initial state, float32 (float64 for tests of order).

    Returns:
        (B, ...) the last state, or (rows + 1, B, ...) all of them. When a callback stops the run early: the estimate
        of x0 at that row, or the states so far.
    """
    table = plan.table
    rows, times = table.tensor(x.device, x.dtype), table.times(len(x), x.device, x.dtype)
    history = x.new_zeros((table.history, *x.shape)) if table.history else None
    states, x0 = _States(x, len(table), plan.trajectory), torch.zeros_like(x)
    evals, host_times = table["eval"] == 1, table["t"].tolist()
    for k in _counted(plan):
        x, out = states[k], states[k + 1]
        given = _outputs(plan, k, x, times[k], x0) if evals[k] else {}
        solver_step(rows, k, x, **given, cond=plan.cond, history=history, out=out, **_noise(plan, k, x))
        if evals[k] and plan.callback is not None and plan.callback(k, host_times[k], out, x0):
            return states.until(k + 1) if plan.trajectory else x0
    return states.until(len(table))


def _outputs(plan: Run, k: int, x: Tensor, t: Tensor, x0: Tensor) -> dict[str, Tensor | None]:
    """What the network says in row k, and where the row's estimate of x0 goes."""
    scale, channels = float(plan.table["c_in"][k]), x.shape[1]
    told, guided = x0 if plan.self_condition else None, plan.table.second_branch(k)
    m, m_u = plan.evaluate(x, t, told, guided=guided, scale=scale)
    mean, variance = split_variance(m, channels, x.dtype)
    other = None if m_u is None else split_variance(m_u, channels, x.dtype)[0]
    given = {"m": mean, "m_u": other, "v": variance, "x0_out": x0}
    columns = None if plan.adapt is None else plan.adapt(k, x, mean, other)
    if columns is None:
        return given
    return {**given, "per_sample": columns, "m_u": mean if other is None else other}


def _noise(plan: Run, k: int, x: Tensor) -> dict[str, Tensor | None]:
    """The noise and known region of row k; with philox noise the step makes what it needs from the seeds."""
    table, region = plan.table, plan.region
    given: dict[str, Tensor | None] = {} if region is None else {"known": region.known, "mask": region.mask}
    if plan.noise.inside:
        return {**given, "seeds": plan.noise.seeds}
    row = int(table["noise_row"][k])
    if table["s"][k] != 0:
        given["noise"] = plan.noise.row(Stream(int(table["stream"][k])), row, x)
    if region is not None and table["i_s"][k] != 0:
        given["known_noise"] = plan.noise.row(Stream.KNOWN, row, x)
    return given


def _counted(plan: Run) -> Iterable[int]:
    if not plan.progress:
        return range(len(plan.table))
    from tqdm.auto import tqdm

    return tqdm(range(len(plan.table)), desc=plan.table.solver, leave=False)
