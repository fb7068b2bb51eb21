"""`fastdiff.profile(folder)`: what a block of code spends its time on, by sampling step and by op.

Every call of an op gets a range named ``fastdiff::op (backend)``, and everything up to the end of a solver step one
named ``fastdiff::step N``. The ranges appear in the trace of torch.profiler and, with a CUDA device or the package
`nvtx`, as NVTX ranges for nsys.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from fastdiff.ops import dispatch

#: Lines of the table of what took longest.
_ROWS = 40


def _nvtx(name: str) -> AbstractContextManager[Any] | None:
    if torch.cuda.is_available():
        return torch.cuda.nvtx.range(name)
    if importlib.util.find_spec("nvtx") is None:
        return None
    import nvtx

    return nvtx.annotate(name)


class _Ranges:
    """An observer of ops that opens ranges; the range of a step is left open until the next solver step has ended."""

    def __init__(self) -> None:
        self.steps = 0
        self._open = ExitStack()

    def begin_step(self) -> None:
        """Open the range of the next step."""
        self._open = self._opened(f"fastdiff::step {self.steps}")

    def end_step(self) -> None:
        """Close the range of the step at work."""
        self._open.close()

    def _opened(self, name: str) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(torch.profiler.record_function(name))
        told = _nvtx(name)
        if told is not None:
            stack.enter_context(told)
        return stack

    @contextmanager
    def __call__(self, op: str, backend: dispatch.Backend, inputs: Mapping[str, Any]) -> Iterator[None]:
        with self._opened(f"fastdiff::{op} ({backend.name})"):
            yield
        if op == "solver_step":
            self.end_step()
            self.steps += 1
            self.begin_step()


@contextmanager
def profile(folder: str | Path) -> Iterator[torch.profiler.profile]:
    """Profile the block; it runs as usual, slower.

    Args:
        folder: where trace.json (for chrome://tracing or Perfetto) and ops.txt (what took longest) are written; created
            if missing.

    Yields:
        The torch profiler, whose `key_averages()` are available after the block.

    Raises:
        OSError: if the folder cannot be created or written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    ranges = _Ranges()
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        ranges.begin_step()
        try:
            with dispatch.observing(ranges):
                yield profiler
        finally:
            ranges.end_step()
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    text = profiler.key_averages().table(sort_by=order, row_limit=_ROWS)
    (folder / "ops.txt").write_text(text, encoding="utf-8")
    profiler.export_chrome_trace(str(folder / "trace.json"))
