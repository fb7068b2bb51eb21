"""CUDA graphs of the sampling loop: rows are recorded once and replayed.

A recording holds addresses, not numbers. The table, the times, the seeds and everything given per sample are copied
into its static buffers, so one recording serves every run of the same shapes: other seeds, labels and guidance weights,
even another solver with the same number of rows. If single rows are replayed, a counter on the device says which row it
is, and a small launch of its own advances it. In a recording of the whole loop each row has its fixed place, and one
launch stands between two network calls. Numbers and flags that a network keeps in Python are part of the recording,
see `fastdiff.engine.replay_cache.settings_of`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from fastdiff.engine.live_ops import sdpa_choice
from fastdiff.engine.recorder import Recorder, RecordingError, Replay
from fastdiff.engine.replay_cache import ReplayCache, addresses_of, layout_of, settings_of
from fastdiff.ops.dispatch import forced_backend
from fastdiff.sampling.input_safety import leaves_inputs_alone
from fastdiff.sampling.loop import Buffers, Region, Run, advance, make_buffers, run
from fastdiff.sampling.noise import NoiseSource
from fastdiff.sampling.position import DevicePosition, FixedPosition, Kind, Position, device_rows, kinds

#: Runs without hooks, up to this many rows, are one recording of the whole loop.
WHOLE_LOOP_ROWS = 64
Given = dict[str, Tensor]


def reasons(task: Run, x: Tensor) -> list[str]:
    """Why the rows of a run cannot be recorded; empty when they can."""
    told = []
    if torch.is_autocast_enabled(x.device.type):
        told.append("autocast is on around it, whose casts of weights end with it; give dtype= instead")
    if threading.get_ident() in _turn.runs:
        told.append("it is asked for by a callback of a recorded run")
    if not task.noise.inside:
        told.append("its noise is made on the host; only noise by seed is made on the device")
    if task.evaluate.classifier is not None:
        told.append("a classifier's gradient is taken in it")
    if task.evaluate.one_by_one and len(x) > 1:
        told.append("the network is called for each sample alone")
    nets = (task.evaluate.net, task.evaluate.weak)
    loose = [net for net in nets if net is not None and not isinstance(net, nn.Module)]
    if loose:
        told.append("the network is not a torch module, so its weights cannot be watched")
    return told


def given(task: Run) -> Given:
    """Every tensor of a run that a recording reads from a static buffer, by name."""
    region = task.region
    named: dict[str, Tensor | None] = {
        "seeds": task.noise.seeds,
        "cond": task.cond,
        "known": None if region is None else region.known,
        "mask": None if region is None else region.mask,
        **{f"input {name}": value for name, value in task.evaluate.inputs.items()},
        **{f"null {name}": value for name, value in (task.evaluate.null or {}).items()},
    }
    return {name: value for name, value in named.items() if value is not None}


def with_given(task: Run, tensors: Given) -> Run:
    """The run on other tensors of the same names."""
    evaluate, region = task.evaluate, task.region
    inputs = {name: tensors[f"input {name}"] for name in evaluate.inputs}
    null = None if evaluate.null is None else {name: tensors[f"null {name}"] for name in evaluate.null}
    return replace(
        task,
        evaluate=replace(evaluate, inputs=inputs, null=null),
        noise=NoiseSource("philox", tensors["seeds"]),
        cond=tensors.get("cond"),
        region=None if region is None else Region(tensors["known"], tensors["mask"]),
        callback=None,
        progress=False,
    )


class Recording:
    """Static buffers, and a replay for every kind of row (or one for the whole loop) that was needed so far.

    Args:
        task: A run of the shapes to record.
        x: (B, ...) its initial state.
        recorder: Records.

    Attributes:
        given: Static buffers of what is given per sample, by name.
        buffers: Static buffers of the loop.
        busy: A run uses it.
    """

    def __init__(self, task: Run, x: Tensor, recorder: Recorder) -> None:
        self.given = {name: tensor.clone() for name, tensor in given(task).items()}
        self.buffers: Buffers = make_buffers(task.table, x)
        self._task = with_given(task, self.given)
        self._counter, _, self._times = device_rows(task.table, x)
        self._recorder = recorder
        self.busy = False
        self._replays: dict[tuple[bool, tuple[Kind, ...]], Replay] = {}

    def prepare(self, task: Run, x: Tensor) -> list[Replay]:
        """Load a run and return what carries its rows out, in order; records what is missing first."""
        plan = kinds(task.table)
        whole = (
            len(plan) <= WHOLE_LOOP_ROWS and task.callback is None and not (task.trajectory or task.progress)
        )
        groups = [tuple(plan)] if whole else [(kind,) for kind in plan]
        for group in dict.fromkeys(groups):
            if (whole, group) not in self._replays:
                self._load(task, x)
                first = plan.index(group[0])
                self._replays[whole, group] = self._record(whole, group, first)
        self._load(task, x)
        rows = [self._replays[whole, group] for group in groups]
        return [*rows, *[_nothing] * (len(plan) - len(rows))]

    def _record(self, whole: bool, rows: tuple[Kind, ...], first: int) -> Replay:
        """One replay of the whole loop or of rows of one kind, of which `first` is one in the loaded run."""
        task, buffers = self._direct(rows, first), self.buffers
        at: list[Position] = (
            [FixedPosition(kind, k, buffers.rows, self._times) for k, kind in enumerate(rows)]
            if whole
            else [DevicePosition(kind, self._counter, buffers.rows, self._times) for kind in rows]
        )

        def work() -> None:
            for position in at:
                advance(task, buffers, position)
                if not whole:
                    self._counter.add_(1)

        return self._recorder.record(work, lambda: self._counter.fill_(first), self.static())

    def _direct(self, rows: tuple[Kind, ...], first: int) -> Run:
        """The run, with its networks given the state itself instead of a copy if they leave it alone."""
        task, buffers = self._task, self.buffers
        told = buffers.x0 if task.self_condition else None
        for kind in set(rows):
            at = FixedPosition(kind, first, buffers.rows, self._times)
            scale = at.value("c_in") if kind.scaled else 1.0
            if kind.evaluates and not leaves_inputs_alone(
                task.evaluate, buffers.x, at.t, told, kind.guided, scale
            ):
                return task
        return replace(task, evaluate=replace(task.evaluate, copies=False))

    def static(self) -> list[Tensor]:
        """Every tensor whose address the recording holds, but for the weights."""
        mine = [tensor for tensor in self.buffers if tensor is not None]
        return [*mine, *self.given.values(), self._counter, self._times]

    def _load(self, task: Run, x: Tensor) -> None:
        for name, tensor in given(task).items():
            self.given[name].copy_(tensor)
        counter, rows, times = device_rows(task.table, x)
        for buffer, value in ((self._counter, counter), (self._times, times), (self.buffers.rows, rows)):
            buffer.copy_(value)
        self.buffers.x.copy_(x)
        self.buffers.x0.zero_()
        if self.buffers.history is not None:
            self.buffers.history.zero_()


def _nothing() -> None:
    """The rows after the first of a whole loop: already carried out."""


class Replayed:
    """Carries the rows of one run out by replays; see `fastdiff.sampling.loop.Rows`."""

    def __init__(self, recording: Recording, task: Run, x: Tensor) -> None:
        self._rows = iter(recording.prepare(task, x))
        self.buffers = recording.buffers

    def advance(self) -> None:
        """The next row."""
        next(self._rows)()


class _Turn:
    """Recorded runs take turns: the recordings of a device share their memory.

    A run leaves its turn to others while its callback is at work, which may wait for them: then nothing is replayed,
    and nothing outlives a replay but the static buffers of the run's own recording.

    Attributes:
        runs: threads with a recorded run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: int | None = None
        self.runs: set[int] = set()

    def take(self, device: torch.device) -> None:
        """Wait for the turn, and for what the last run has left on the device."""
        self._lock.acquire()
        mine = threading.get_ident()
        if device.type == "cuda" and self._last not in (None, mine):
            torch.cuda.synchronize(device)
        self._last = mine
        self.runs.add(mine)

    def leave(self) -> None:
        """Leave the turn to others."""
        self._lock.release()

    @contextmanager
    def taken(self, device: torch.device) -> Iterator[None]:
        """A run inside the block."""
        self.take(device)
        try:
            yield
        finally:
            self.runs.discard(threading.get_ident())
            self.leave()

    def left_by(
        self, callback: Callable[..., object] | None, device: torch.device
    ) -> Callable[..., object] | None:
        """The callback, the turn left to others while it is at work."""
        if callback is None:
            return None

        def called(*args: object) -> object:
            self.leave()
            try:
                return callback(*args)
            finally:
                self.take(device)

        return called


_turn = _Turn()
RECORDINGS: ReplayCache[Recording] = ReplayCache(most=8)
#: Why a recording failed, so that it is not tried again by every batch.
REFUSED: ReplayCache[str] = ReplayCache(most=32)


def run_recorded(task: Run, x: Tensor, recorder: Recorder) -> Tensor:
    """Carry out a run on a recording of its shapes, a kept one where there is one.

    Args:
        task: A run without `reasons`.
        x: (B, ...) initial state.
        recorder: Records what is missing.

    Returns:
        As `fastdiff.sampling.loop.run`, in memory of its own.

    Raises:
        RecordingError: when the rows cannot be recorded; no part of a recording is kept.
    """
    modules = [net for net in (task.evaluate.net, task.evaluate.weak) if isinstance(net, nn.Module)]
    key = _key(task, x, modules)
    refusal = REFUSED.find(key, modules)
    if refusal is not None:
        raise RecordingError(refusal)
    with _turn.taken(x.device):
        recording = _idle(key, modules, lambda: Recording(task, x, recorder))
        recording.busy = True
        try:
            return _carried_out(recording, key, modules, task, x)
        finally:
            recording.busy = False


def _idle(key: Hashable, modules: list[nn.Module], make: Callable[[], Recording]) -> Recording:
    """A recording that no run uses whose callback is at work."""
    for copy in count():
        recording = RECORDINGS.get((key, copy), modules, make)
        if not recording.busy:
            return recording
    raise AssertionError  # of the type checker: the count has no end


def _carried_out(
    recording: Recording, key: Hashable, modules: list[nn.Module], task: Run, x: Tensor
) -> Tensor:
    try:
        rows = Replayed(recording, task, x)
    except Exception as error:
        RECORDINGS.drop(recording)
        why = str(error)
        if isinstance(error, RecordingError):
            REFUSED.get(key, modules, lambda: why)
        raise
    result = run(replace(task, callback=_turn.left_by(task.callback, x.device)), x, rows)
    result = result if task.trajectory else result.clone()
    if result.is_cuda:  # another stream may replay next
        torch.cuda.current_stream(result.device).synchronize()
    return result


def _key(task: Run, x: Tensor, modules: list[nn.Module]) -> Hashable:
    """What a recording fixes."""
    evaluate, table, adapt = task.evaluate, task.table, task.adapt
    rule = None if adapt is None else adapt.guidance
    return (
        layout_of(x),
        tuple((name, layout_of(tensor)) for name, tensor in given(task).items()),
        tuple((addresses_of(module), settings_of(module)) for module in modules),
        (sdpa_choice(), torch.are_deterministic_algorithms_enabled()),
        (len(table), table.history, table.discrete_time, task.self_condition),
        (evaluate.input_dtype, evaluate.autocast, torch.is_inference_mode_enabled(), forced_backend()),
        None if rule is None else (rule.w, rule.rescale, rule.parallel),
        None if adapt is None else adapt.dynamic,
    )
