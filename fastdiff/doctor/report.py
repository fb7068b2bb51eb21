"""The findings as text to paste into an issue: two Markdown tables and a list of what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastdiff.doctor.diagnosis import Diagnosis
from fastdiff.doctor.examine import FAILURES, Finding
from fastdiff.doctor.loop import IMAGES, LOOP, STEPS
from fastdiff.ops import dispatch, winners

_MOST_FAILURES = 20


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with aligned columns."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def as_text(found: Diagnosis) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {value}" for name, value in winners.stamp().items() if name != "format")
    device = ", ".join(f"{name} {value}" for name, value in found.device.items())
    lines = [f"device: {device}", f"versions: {versions}", "", "### Right or wrong", ""]
    lines += table(("op", "backend", "result", "worst error / allowed"), _correctness(found.findings))
    lines += ["", *_absent(found.findings)]
    lines += _loop(found.findings)
    timed = _times(found)
    if timed:
        lines += ["", "### Time of a call in ms (10th to 90th percentile)", ""]
        lines += table(("op", "example", "times", "fastest"), timed)
    lines += _wrong(found.failures())
    lines += _unexamined(found.unexamined)
    return "\n".join([*lines, "", f"winners: {found.stored}", _verdict(found)])


def _unexamined(reasons: dict[str, str]) -> list[str]:
    """A line for each reason: one example by its name, several of an op by their number."""
    lines = []
    for why in dict.fromkeys(reasons.values()):
        of: dict[str, list[str]] = {}
        for name in (name for name, reason in reasons.items() if reason == why):
            of.setdefault(name.partition(" ")[0], []).append(name)
        told = [names[0] if len(names) == 1 else f"{op} ({len(names)} examples)" for op, names in of.items()]
        lines.append(f"not examined: {', '.join(told)}: {why}")
    return lines


def _loop(findings: list[Finding]) -> list[str]:
    """The network and the loop, way by way."""
    rows = [
        (
            one.backend,
            one.state,
            f"{one.ms:.0f}" if one.ms else "",
            f"{one.error:.2g}" if one.error else "",
            one.note,
        )
        for one in findings
        if one.op == LOOP
    ]
    if not rows:
        return []
    head = ("way", "images", "ms", "worst difference / allowed", "")
    return ["", f"### {IMAGES} images in {STEPS} steps of DDIM, against the CPU's", "", *table(head, rows)]


def _verdict(found: Diagnosis) -> str:
    examined = len(
        {(f.op, f.backend) for f in found.findings if f.op != LOOP and f.state not in ("absent", "refused")}
    )
    bad = sorted({f"{f.op} on {f.backend}" for f in found.failures()})
    end = f"NOT RIGHT: {', '.join(bad)}" if bad else "all right"
    return f"{examined} kernels examined in {found.seconds:.0f} s: {end}"


def _correctness(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    rows = []
    for op in sorted({found.op for found in findings}):
        for backend in dispatch.BACKENDS:
            own = [found for found in findings if (found.op, found.backend) == (op, backend)]
            if any(one.state != "absent" for one in own):
                errors = [found.error for found in own if found.error is not None]
                rows.append((op, backend, _counted(own), f"{max(errors):.2g}" if errors else ""))
    return rows


def _counted(own: list[Finding]) -> str:
    states = [found.state for found in own]
    if set(states) == {"refused"}:
        return f"refuses all examples: {own[0].note}"
    order = ("right", *FAILURES, "refused")
    return ", ".join(f"{states.count(state)} {state}" for state in order if state in states)


def _absent(findings: list[Finding]) -> list[str]:
    """Backends that are not here, with their reasons."""
    ops: dict[tuple[str, str], dict[str, None]] = {}
    for one in findings:
        if one.state == "absent" and one.op != LOOP:
            ops.setdefault((one.backend, one.note), {})[one.op] = None
    return [f"{backend} is not available for {', '.join(of)}: {why}" for (backend, why), of in ops.items()]


def _times(found: Diagnosis) -> list[tuple[str, str, str, str]]:
    best, rows = found.winners(), []
    timed = [one for one in found.findings if one.ms is not None and one.op != LOOP]
    for op, example in dict.fromkeys((one.op, one.example) for one in timed):
        own = [one for one in timed if (one.op, one.example) == (op, example)]
        winner = best.get(op, {}).get(own[0].shape_class, "none is right")
        rows.append((op, example, "; ".join(map(_time, own)), winner))
    return rows


def _time(found: Finding) -> str:
    low, high = found.spread or (found.ms, found.ms)
    return f"{found.backend} {found.ms:.3g} ({low:.3g} to {high:.3g})"


def _wrong(failures: list[Finding]) -> list[str]:
    if not failures:
        return [""]
    lines = ["", "### Not right", ""]
    for f in failures[:_MOST_FAILURES]:
        lines.append(f"- {f.op} on {f.backend}, {f.example}, {f.phase}: {f.state} ({f.note})")
    more = len(failures) - _MOST_FAILURES
    return [*lines, *([f"- and {more} more"] if more > 0 else []), ""]
