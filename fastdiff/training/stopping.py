"""Stopping a run on SIGTERM or Ctrl-C: after the current step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(SystemExit):
    """A signal ended the run; its checkpoint is written.

    Not caught, it ends the process with the usual code of that signal (143 for SIGTERM, 130 for SIGINT).

    Attributes:
        signum: the signal.
        step: finished steps.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(128 + signum)
        self.signum, self.step = signum, step

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return f"training stopped by {name} after step {self.step}; continue with --resume (resume=True)"


class StopRequest:
    """Context that notes a signal instead of letting it kill the process; a second Ctrl-C interrupts at once.

    Outside the main thread, where signals cannot be handled, it does nothing.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
