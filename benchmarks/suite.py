"""The whole of `make bench`: every file in a process of its own, one after the other, then the pages.

    python -m benchmarks.suite [options of pytest]      for example --rounds 1, or -k "4x128"

A file that fails, crashes or hangs does not stop the others; it is reported at the end, and the exit status is 1. The
time of each file is stored in results/suite.json. A rival's row may be kept from an earlier run (see bench_network.py);
FASTDIFF_BENCH_FRESH=1 measures everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure

HERE = Path(__file__).parent
#: Seconds that a file should take on two cores; twice as many end it. Together 40 minutes. Those for GPUs,
#: bench_X_gpu.py, are not among them.
BUDGET_S = {
    "network": 780,
    "sampling": 420,
    "training": 180,
    "solver_step": 60,
    "norms": 120,
    "conv3x3": 60,
    "vq": 120,
    "attention": 40,
    "growth": 240,
    "solvers": 120,
    "codebook": 60,
    "pixelcnn": 60,
    "roofline": 90,
}
#: Nothing is begun after so many seconds.
WHOLE_S = 2400.0
#: pytest's statuses of a run without a failure: all passed, or nothing was selected.
FINE = (0, 5)


@dataclass
class Suite:
    """What became of every file: seconds, and why one is not as it should be."""

    seconds: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def told(self) -> list[str]:
        """A line for each file."""
        lines = []
        for name in dict.fromkeys((*self.seconds, *self.wrong)):
            took, planned = self.seconds.get(name, 0.0), BUDGET_S.get(name, 0)
            lines.append(f"{name:<12}{took:7.0f} s of {planned}  {self.wrong.get(name, '')}".rstrip())
        return lines


def ended(command: Sequence[str], limit_s: float) -> str:
    """Run a command with all that it starts; why it did not end well, or nothing."""
    process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"ended after {limit_s:.0f} s"
    finally:
        _end_all(process)
    if status in FINE:
        return ""
    return f"crashed: signal {-status}" if status < 0 else f"failed: status {status}"


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """End the session that a process leads, rivals that it left behind included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(
    commands: Mapping[str, Sequence[str]], budget_s: Mapping[str, float], whole_s: float = WHOLE_S
) -> Suite:
    """Run each command within twice its budget, as long as there is time."""
    suite, began = Suite(), time.monotonic()
    for name, command in commands.items():
        left = whole_s - (time.monotonic() - began)
        if left <= 0:
            suite.wrong[name] = f"not started: the time limit of {whole_s:.0f} s was reached"
            continue
        start = time.monotonic()
        print(f"== {name}", flush=True)
        why = ended(command, min(2 * budget_s[name], left))
        suite.seconds[name] = round(time.monotonic() - start, 1)
        if why:
            suite.wrong[name] = why
    return suite


def main(options: list[str]) -> int:
    """Measure everything; 1 when a file is not as it should be."""
    quiet = ["--benchmark-only", "-q", "-s", "-o", "timeout=0"]  # each file has a limit of its own
    pytest = [sys.executable, "-m", "pytest", *quiet, *options]
    commands = {name: [*pytest, f"benchmarks/bench_{name}.py"] for name in BUDGET_S}
    suite = run(commands, BUDGET_S)
    if not options:
        kept = {
            "machine": measure.machine(),
            "seconds": suite.seconds,
            "wrong": suite.wrong,
            "budget_s": BUDGET_S,
        }
        (HERE / "results" / "suite.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=HERE.parent, check=True)
    print("\n".join(suite.told()))
    return 1 if suite.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
