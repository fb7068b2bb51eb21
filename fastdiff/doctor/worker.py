"""The process that examines: one JSON line in for each example, JSON lines out, until its input ends.

In:   {"op": ..., "example": number, "without": [backends]}, where the op may be the loop and the example a way
Out:  {"facts": ...} once; for each example {"begin": [backend, phase]} and {"finding": ...} lines, then {"done": true}

Whatever kernels print goes to stderr. ``python -m fastdiff.doctor.worker DEVICE`` is how the supervisor starts it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from fastdiff.doctor import devices
from fastdiff.doctor.examine import Case, examine
from fastdiff.doctor.examples import examples_of
from fastdiff.doctor.loop import LOOP, WAYS, examine_loop
from fastdiff.ops import dispatch


def _private_output() -> TextIO:
    """The process's own stdout for our lines alone; what else is printed goes to stderr."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def serve(device: devices.Device, requests: Iterable[str], out: TextIO) -> None:
    """Answer requests until there are no more."""

    def tell(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    tell(facts=device.facts())
    for request in requests:
        wanted = json.loads(request)
        if wanted["op"] == LOOP:
            _serve_loop(device, wanted, tell)
            continue
        case = Case(wanted["op"], examples_of(wanted["op"])[wanted["example"]], device)
        for found in examine(case, lambda *what: tell(begin=what), frozenset(wanted["without"])):
            tell(finding=found.told())
        tell(done=True)


def _serve_loop(device: devices.Device, wanted: dict[str, Any], tell: Callable[..., None]) -> None:
    way = list(WAYS)[wanted["example"]]
    if way not in wanted["without"]:
        for found in examine_loop(device, way, lambda *what: tell(begin=what)):
            tell(finding=found.told())
    tell(done=True)


def main(arguments: list[str]) -> None:
    """Serve stdin for the device named by the only argument."""
    faulthandler.enable()
    out = _private_output()
    dispatch.load()
    serve(devices.named(arguments[0]), sys.stdin, out)


if __name__ == "__main__":
    main(sys.argv[1:])
