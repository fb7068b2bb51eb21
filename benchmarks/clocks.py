"""How long a call takes: on the host, or between two events of a GPU with its second-level cache overwritten."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from fastdiff.doctor.devices import HEAD_START, driver

Candidate = Callable[[], object]
#: A sample shorter than this repeats its call, so that the clock and a single interrupt do not decide.
SHORTEST_SAMPLE_S = 1e-3
#: More than the second-level cache of any GPU.
FLUSH_BYTES = 2**29


class Clock(Protocol):
    """Times calls."""

    def repeats(self, candidate: Candidate) -> int:
        """Calls per sample, found after a warm-up."""
        ...

    def sample(self, candidate: Candidate, repeats: int) -> tuple[float, bool]:
        """(seconds per call, whether nothing disturbed it)."""
        ...


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Wall:
    """The host's clock; caches as the repetition leaves them."""

    def repeats(self, candidate: Candidate) -> int:
        """Enough for the shortest sample; four calls, or half a second of them, make it warm."""
        warm = 0.0
        for _ in range(4):
            start = time.perf_counter()
            candidate()
            took = time.perf_counter() - start
            warm += took
            if warm > 0.5:
                break
        return max(1, round(SHORTEST_SAMPLE_S / max(took, 1e-7)))

    def sample(self, candidate: Candidate, repeats: int) -> tuple[float, bool]:
        """Undisturbed: no thread was interrupted."""
        before, start = _switches(), time.perf_counter()
        for _ in range(repeats):
            candidate()
        return (time.perf_counter() - start) / repeats, _switches() == before


class Events:
    """A GPU's own clock: one call, after everything else has left the cache."""

    def __init__(self, device: str) -> None:
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)

    def repeats(self, candidate: Candidate) -> int:
        """One; what a call compiles or chooses it does in the warm-up."""
        for _ in range(3):
            candidate()
        torch.cuda.synchronize()
        return 1

    def sample(self, candidate: Candidate, repeats: int) -> tuple[float, bool]:
        """Nobody else's work shares the stream."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START)  # the host queues the calls meanwhile
        self.flush.zero_()
        start.record()
        for _ in range(repeats):
            candidate()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats, True


def graphics(device: str) -> dict[str, Any]:
    """What a number of a GPU depends on."""
    properties = torch.cuda.get_device_properties(device)
    try:
        import triton

        version = str(triton.__version__)
    except ImportError:
        version = "not installed"
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver(),
        "cuda": torch.version.cuda,
        "triton": version,
    }
