"""The device under examination: places tensors on it with their strides, and times calls with cold caches."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from fastdiff.ops import winners

#: A shorter call is repeated within one sample: the clock and one interrupt must not decide.
_SHORTEST_SAMPLE_MS = 0.5
#: Clock cycles that a GPU sleeps before a timed call, about a millisecond: the host is to be ahead of it, so that a
#: call of several launches is timed as it runs in a CUDA graph, and not as fast as Python can launch.
HEAD_START = 2_000_000


class Device(Protocol):
    """What an examination needs of a device."""

    kind: str

    def facts(self) -> dict[str, Any]:
        """What it is, for the report."""
        ...

    def put(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor there, with its strides and its overlaps."""
        ...

    def time_ms(self, call: Callable[[], object]) -> float:
        """Milliseconds of one call, with caches that do not hold its inputs if it is a GPU."""
        ...


def copied(tensor: Tensor, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Tensor:
    """A copy with the same strides, expanded and sliced ones too."""
    length = tensor.untyped_storage().nbytes() // tensor.element_size()
    whole = tensor.detach().as_strided((length,), (1,), 0).to(device=device, dtype=dtype, copy=True)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


@contextmanager
def exact_products() -> Iterator[None]:
    """float32 products and convolutions of a GPU without TF32, which torch allows convolutions by default."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


class Cpu:
    """The processor, with the threads that torch uses."""

    kind = "cpu"

    def facts(self) -> dict[str, Any]:
        """Name and threads."""
        return {"name": winners.device_name("cpu"), "threads": torch.get_num_threads()}

    def put(self, tensor: Tensor) -> Tensor:
        """A copy with the same strides."""
        return copied(tensor)

    def time_ms(self, call: Callable[[], object]) -> float:
        """By time.perf_counter, repeated until it takes half a millisecond; caches as the repetition leaves them."""
        count, taken = 0, 0.0
        start = time.perf_counter()
        while taken < _SHORTEST_SAMPLE_MS:
            call()
            count += 1
            taken = 1e3 * (time.perf_counter() - start)
        return taken / count


class Cuda:
    """One CUDA device."""

    kind = "cuda"

    def __init__(self, index: int = 0) -> None:
        self.index = index
        torch.cuda.set_device(index)
        properties = torch.cuda.get_device_properties(index)
        cache = getattr(properties, "L2_cache_size", 0) or (64 << 20)
        self._flush = torch.empty(2 * cache, dtype=torch.uint8, device=f"cuda:{index}")

    def facts(self) -> dict[str, Any]:
        """Name, capability, memory, versions of the driver and of CUDA."""
        properties = torch.cuda.get_device_properties(self.index)
        return {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "driver": driver(),
            "cuda": torch.version.cuda,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        }

    def put(self, tensor: Tensor) -> Tensor:
        """A copy there with the same strides."""
        return copied(tensor, f"cuda:{self.index}")

    def time_ms(self, call: Callable[[], object]) -> float:
        """By events around the call, after twice the second-level cache has been overwritten.

        The device sleeps first: what is timed is the device's work, without the host's for short calls.
        """
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START)
        self._flush.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


@lru_cache(maxsize=1)
def driver() -> str:
    """The version of NVIDIA's driver, or at least the CUDA version that it serves; "unknown" without either."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        told = []
    if told:
        return told[0]
    serves = int(getattr(torch._C, "_cuda_getDriverVersion", int)())
    return f"one that serves CUDA {serves // 1000}.{serves % 1000 // 10}" if serves else "unknown"


def named(kind: str) -> Device:
    """The device of a kind: "cpu", "cuda", "cuda:1"; "auto" is the GPU where there is one.

    Raises:
        ValueError: an unknown kind, or a device that is not here.
    """
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return Cpu()
    name, _, index = kind.partition(":")
    if name != "cuda" or (index and not index.isdigit()):
        raise ValueError(f"doctor: device must be auto, cpu, cuda or cuda:N, got {kind!r}")
    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"doctor: device must be available here, got {kind!r} (see `fastdiff info`)")
    return Cuda(int(index or 0))
