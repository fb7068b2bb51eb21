"""Watches the worker: a backend that crashes or hangs it becomes a finding, and a new worker goes on without it."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from fastdiff.doctor.examine import Finding

#: A worker that says nothing for so long hangs. Compiling one Triton kernel takes seconds.
PATIENCE_S = 60.0
#: A worker may take so long to start.
START_S = 120.0


@dataclass
class Request:
    """One example, and the backends that are not to be tried on it again.

    `patience_s` is longer than usual for what compiles, and with less than `needs_s` left it is not begun.
    """

    op: str
    number: int
    example: str
    without: list[str] = field(default_factory=list)
    patience_s: float = 0.0
    needs_s: float = 0.0

    def line(self) -> str:
        """As the worker reads it."""
        return json.dumps({"op": self.op, "example": self.number, "without": self.without}) + "\n"


class WorkerLost(OSError):
    """The examining process does not start."""


class Silence(Exception):
    """The worker said nothing in time."""


class Worker:
    """A running worker and the lines it writes."""

    def __init__(self, command: Sequence[str]) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (end closes it)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True, encoding="utf-8"
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stream: TextIO) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, request: Request) -> None:
        """Send a request; a worker that has gone is noticed by its silence."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self.process.stdin).write(request.line())
            _pipe(self.process.stdin).flush()

    def next(self, patience_s: float) -> dict[str, Any] | None:
        """The next line, None when the worker has ended.

        Raises:
            Silence: nothing came in time.
        """
        try:
            line = self._lines.get(timeout=patience_s)
        except queue.Empty:
            raise Silence from None
        return None if line is None else json.loads(line)

    def end(self) -> str:
        """Stop it if it runs; how it ended, in words."""
        with contextlib.suppress(BrokenPipeError):
            _pipe(self.process.stdin).close()
        if self.process.poll() is None:
            try:
                self.process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self.errors.seek(0)
        said = [line.strip() for line in self.errors.read().splitlines() if line.strip()]
        self.errors.close()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{how}: {said[-1]}" if said and code > 0 else how


def _pipe(stream: Any) -> TextIO:
    if stream is None:
        raise RuntimeError("doctor: the worker has no pipe")
    return stream


class Supervisor:
    """Sends examples to a worker, and starts another where one ends.

    Args:
        command: how a worker is started.
        patience_s: a worker silent for so long hangs.
    """

    def __init__(self, command: Sequence[str], patience_s: float = PATIENCE_S) -> None:
        self.command, self.patience_s = command, patience_s
        self.facts: dict[str, Any] = {}
        self._worker: Worker | None = None

    def _running(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self.command)
            try:
                told = self._worker.next(START_S)
            except Silence:
                told = None
            if told is None:
                worker, self._worker = self._worker, None
                raise WorkerLost(f"doctor: the examining process does not start ({worker.end()})")
            self.facts = told["facts"]
        return self._worker

    def start(self) -> dict[str, Any]:
        """Start a worker and return the facts of its device.

        Raises:
            WorkerLost: it does not start.
        """
        self._running()
        return self.facts

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def findings(self, request: Request) -> Iterator[Finding]:
        """All findings of one example, whatever its backends do to the worker."""
        while True:
            found, culprit = self._attempt(request)
            if culprit is None:
                yield from found
                return
            yield culprit
            if culprit.backend in request.without or culprit.phase == "reference":
                yield from found
                return
            request.without.append(culprit.backend)

    def _attempt(self, request: Request) -> tuple[list[Finding], Finding | None]:
        """What one worker found, and the backend that ended it."""
        found: list[Finding] = []
        worker, begun = self._running(), ("torch", "reference")
        patience_s = max(self.patience_s, request.patience_s)
        worker.ask(request)
        while True:
            try:
                line = worker.next(patience_s)
            except Silence:
                return found, self._lost(request, begun, "timeout", f"silent for {patience_s:g} s")
            if line is None:
                return found, self._lost(request, begun, "crashed", "")
            if "done" in line:
                return found, None
            if "begin" in line:
                begun = tuple(line["begin"])
            else:
                found.append(Finding(**line["finding"]))

    def _lost(self, request: Request, begun: tuple[str, str], state: str, note: str) -> Finding:
        worker, self._worker = self._worker, None
        how = worker.end() if worker is not None else ""
        backend, phase = begun
        told = f"{note or how}, in {phase}"
        return Finding(request.op, backend, request.example, phase, state, told)


def command(device: str) -> list[str]:
    """How a worker for a device is started."""
    return [sys.executable, "-m", "fastdiff.doctor.worker", device]
