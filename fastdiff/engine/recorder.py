"""Recorder: work on static buffers, recorded once and replayed with one launch.

On a GPU this is a CUDA graph. Whoever records keeps three promises, and tests hold them with a recorder that replays
a plain function: everything the work reads or writes has a fixed address (static buffers, weights, or what it makes
itself), nothing it makes outlives it, and no value is read on the host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[[], object]
Replay = Callable[[], object]
WARM_UPS = 2


class RecordingError(RuntimeError):
    """The work cannot be recorded; nothing of it is kept."""


class Recorder(Protocol):
    """Makes a replay of some work."""

    def record(self, work: Work, reset: Work, static: list[Tensor]) -> Replay:
        """Record `work`, which reads and writes only `static` tensors and what it makes itself.

        Recording may carry the work out any number of times, each after a `reset`: load the static buffers afterwards.

        Raises:
            RecordingError: when the work does something that a replay could not repeat.
        """


class CudaRecorder:
    """CUDA graphs that share one memory pool; warm-up and capture run on a side stream.

    The graphs of one recorder may use the same memory for what they make inside, so they are replayed one after the
    other on one stream, never at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work, reset: Work, static: list[Tensor]) -> Replay:
        """Capture `work`; see `Recorder.record`."""
        elsewhere = sorted({str(tensor.device) for tensor in static if tensor.device.type != "cuda"})
        if elsewhere:
            raise RecordingError(
                f"a CUDA graph reads tensors of its GPU alone, got some on {', '.join(elsewhere)}"
            )
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        handled = sys.exc_info()[1]
        try:
            with torch.cuda.device(self.device):
                self._warm_up(work, reset)
                reset()
                # What other threads do on the device meanwhile, a loader's copies say, is not part of the graph.
                mode = "thread_local"
                with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode=mode):
                    work()
        except Exception as error:
            self._abandon(before)
            reason = str(first(error, handled)).partition("\n")[0]
            raise RecordingError(f"a CUDA graph cannot hold it: {reason}") from error
        return graph.replay

    def _abandon(self, before: torch.cuda.Stream) -> None:
        """After a failed capture: torch leaves the side stream in place, and goes on allocating into the pool."""
        with torch.cuda.device(self.device):  # set_stream changes the device, too
            torch.cuda.set_stream(before)
        with suppress(RuntimeError):  # the pool was not reached
            torch._C._cuda_endAllocateToPool(self.device.index, self.pool)
            torch._C._cuda_releasePool(self.device.index, self.pool)
        self.stream, self.pool = torch.cuda.Stream(self.device), torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(self.device)

    def _warm_up(self, work: Work, reset: Work) -> None:
        """First calls allocate, compile and choose algorithms, which no capture may do."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                reset()
                work()
        torch.cuda.current_stream().wait_stream(self.stream)


def first(error: BaseException, handled: BaseException | None) -> BaseException:
    """What went wrong first: the end of a capture fails, too, where the work in it has failed.

    Args:
        error: the last exception.
        handled: what the caller was handling when the capture began, and is not part of it.
    """
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    return error


_OF_DEVICE: dict[torch.device, CudaRecorder] = {}
_chosen: Recorder | None = None


def recorder_for(device: torch.device) -> Recorder | None:
    """What records on a device: a CUDA graph on an NVIDIA GPU, the one of `using` inside its block, else None."""
    if _chosen is not None:
        return _chosen
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    place = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if place not in _OF_DEVICE:
        _OF_DEVICE[place] = CudaRecorder(place)
    return _OF_DEVICE[place]


@contextmanager
def using(recorder: Recorder) -> Iterator[None]:
    """Record with this one inside the block, on any device."""
    global _chosen
    before, _chosen = _chosen, recorder
    try:
        yield
    finally:
        _chosen = before
