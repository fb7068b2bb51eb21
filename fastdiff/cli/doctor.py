"""`fastdiff doctor`: check every kernel on this machine and find the fastest."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOMETHING_WRONG = 1


@dataclass
class DoctorOptions:
    """Check every kernel of every op against float64 on this machine, and time the correct ones.

    The fastest backend for each op and class of shapes is stored in the user's cache and used from then on (on a GPU,
    attention and convolution are torch's own until then). The tables can be pasted into an issue. Exit status: 0 if all
    is right, 1 if a kernel is wrong, crashes or hangs, 2 for wrong usage.

    Examples:
        fastdiff doctor

        fastdiff doctor --device cpu --ops vq_nearest,solver_step --json report.json
    """

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda or cuda:N."""
    ops: str = ""
    """Names of ops, separated by commas; empty means all. Winners are stored only for a run over all ops."""
    store: bool = True
    """Store the winners in the user's cache."""
    json: Path | None = None
    """Also write all findings to this JSON file."""
    seconds: float = 300.0
    """Start no new example after this many seconds; the report lists what was left out."""
    progress: bool = True
    """Show a progress bar when the output is a terminal."""


def main(arguments: list[str]) -> int:
    """Run the command; 1 when a kernel is wrong, crashes or hangs."""
    from fastdiff.cli.options import parse

    return run(parse(DoctorOptions, arguments, "doctor"))


def run(options: DoctorOptions) -> int:
    """Examine, print the report, write the JSON file."""
    from fastdiff.cli.files import replacing
    from fastdiff.doctor import diagnose
    from fastdiff.doctor.devices import named
    from fastdiff.doctor.report import as_text

    if not options.seconds > 0:
        raise ValueError(f"doctor: --seconds must be above 0, got {options.seconds}")
    named(options.device)
    ops = [name.strip() for name in options.ops.split(",") if name.strip()]
    found = diagnose(
        options.device,
        ops=ops,
        store=options.store,
        budget_s=options.seconds,
        progress=_Bar() if options.progress and sys.stderr.isatty() else None,
    )
    if options.json is not None:
        with replacing(options.json) as temporary:
            temporary.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    print(as_text(found))
    return SOMETHING_WRONG if found.failures() else 0


class _Bar:
    """A progress bar over examples that shows the current op."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, op: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, unit="example", leave=False)
        self.bar.set_description(op, refresh=False)
        self.bar.update(done - self.bar.n)
