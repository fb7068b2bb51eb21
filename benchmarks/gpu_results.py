"""What owners of GPUs sent: python -m benchmarks.gpu_results FILE.json ... keeps files and makes the page anew.

Files are those of `fastdiff doctor --json`, of `fastdiff bench --json` and of `pytest benchmarks/bench_X.py --device
cuda`; they are kept in results/gpu/DEVICE/ under their own names. `benchmarks.report` puts them into
docs/gpu_results.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.tables import ratios

RESULTS = Path(__file__).parent / "results" / "gpu"
Kept = dict[str, Any]
#: What tells of a machine's folders and not of its figures.
PRIVATE = {"stored", "visible"}
STATES = ("right", "wrong", "error", "crashed", "timeout", "refused")
LOOP = "sample"


def device_of(kept: Kept) -> Kept:
    """The facts of the device that a file is about."""
    return kept.get("device") or kept["machine"]


def name_of(kept: Kept) -> str:
    """The device's own name."""
    device = device_of(kept)
    return str(device.get("name") or device.get("device"))


def keep(path: Path, folder: Path = RESULTS) -> Path:
    """Copy a file into the folder of its device.

    Raises:
        ValueError: it is not the file of a GPU.
    """
    kept = json.loads(path.read_text(encoding="utf-8"))
    device = device_of(kept)
    if "capability" not in device:
        raise ValueError(f"gpu_results: FILE must be of a GPU, got {name_of(kept)} ({path})")
    for facts in (kept, device):
        for name in PRIVATE & set(facts):
            del facts[name]
    slug = re.sub(r"[^a-z0-9]+", "-", name_of(kept).lower()).strip("-")
    target = folder / slug / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return target


def table(head: str, rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {head} |", "|---" * (head.count("|") + 1) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def told(facts: Kept) -> str:
    """Facts in a line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if name not in PRIVATE | {"format"})


def correctness(findings: list[Kept]) -> list[str]:
    """How many examples of each op and backend were right, wrong, or not taken."""
    rows = []
    for op, backend in dict.fromkeys((f["op"], f["backend"]) for f in findings):
        own = [f for f in findings if (f["op"], f["backend"]) == (op, backend)]
        states = [f["state"] for f in own]
        if set(states) == {"absent"}:
            continue
        counted = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
        errors = [f["error"] for f in own if "error" in f]
        rows.append((op, backend, counted, f"{max(errors):.2g}" if errors else ""))
    return table("op | backend | examples and gradients | worst error / allowed", rows)


def failures(findings: list[Kept]) -> list[str]:
    """What was not right, in words; and which backends were not there."""
    bad = [f for f in findings if f["state"] in STATES[1:5]]
    lines = [
        f"- {f['op']} on {f['backend']}, {f['example']}, {f['phase']}: {f['state']} ({f.get('note', '')})"
        for f in bad
    ]
    absent: dict[tuple[str, str], dict[str, None]] = {}
    for f in findings:
        if f["state"] == "absent":
            absent.setdefault((f["backend"], f.get("note", "")), {})[f["op"]] = None
    return lines + [
        f"- {backend} was not there for {', '.join(of)}: {why}" for (backend, why), of in absent.items()
    ]


def times(findings: list[Kept]) -> list[str]:
    """Each backend's time beside that of plain torch, op by op."""
    timed = [f for f in findings if "ms" in f and f["op"] != LOOP]
    plain = {(f["op"], f["example"]): f["ms"] for f in timed if f["backend"] == "torch"}
    rows, before = [], ("", "")
    for f in timed:
        case = (f["op"], f["example"])
        if f["backend"] == "torch" or case not in plain:
            continue
        low, high = f.get("spread", (f["ms"], f["ms"]))
        names = case if case != before else ("", "")
        before = case
        spread = f"{low:.3g} to {high:.3g}"
        rows.append(
            (
                *names,
                f["backend"],
                f"{f['ms']:.3g}",
                spread,
                f"{plain[case]:.3g}",
                f"{plain[case] / f['ms']:.2f}",
            )
        )
    head = "op | example | backend | ms | p10 to p90 | plain torch, ms | torch / ours"
    return table(head, rows) if rows else []


def loop(findings: list[Kept]) -> list[str]:
    """The network and the whole loop, way by way."""
    own = [f for f in findings if f["op"] == LOOP]
    eager = next((f["ms"] for f in own if f["backend"] == "eager" and "ms" in f), None)
    rows = []
    for f in own:
        note, ms, error = f.get("note", ""), f.get("ms"), f.get("error")
        if ms is None:
            rows.append((f["backend"], f["state"], "", "", f"{error:.2g}" if error is not None else "", note))
            continue
        images = int(f["example"].split()[0])
        note = re.sub(r"^[^,]*images/s, ", "", note)
        faster = f"{eager / ms:.2f}" if eager else ""
        rows.append(
            (f["backend"], f"{1e3 * images / ms:.3g}", f"{ms:.1f}", faster, f"{error or 0:.2g}", note)
        )
    if not rows:
        return []
    head = "way | images a second | ms | eager's time / its | worst difference / allowed | besides"
    return [f"{own[0]['example']} of DDIM with the shipped model:", "", *table(head, rows)]


def doctor(kept: Kept) -> list[str]:
    """A report of `fastdiff doctor`."""
    findings = kept["findings"]
    parts = [
        loop(findings),
        correctness([f for f in findings if f["op"] != LOOP]),
        failures(findings),
        times(findings),
    ]
    parts.append([f"- not examined: {name}: {why}" for name, why in kept["unexamined"].items()])
    head = f"`fastdiff doctor`, {kept['seconds']:.0f} s: {told(kept['device'])}; {told(kept['versions'])}."
    return [head, *(line for part in parts if part for line in ("", *part))]


def bench(kept: Kept) -> list[str]:
    """The short table of `fastdiff bench`."""
    rows = [
        (r["name"], "", "", r["note"], "")
        if r["note"]
        else (
            r["name"],
            f"{r['ours_ms']:.3g}",
            f"{r['rival_ms']:.3g}",
            f"{r['ratio']:.2f}",
            f"{r['p10']:.2f} to {r['p90']:.2f}",
        )
        for r in kept["rows"]
    ]
    head = "case | ours, ms | plain torch, ms | torch / ours | p10 to p90"
    facts = f"`fastdiff bench`: {told(kept['device'])}; torch {kept['torch']}."
    return [facts, "", *table(head, rows)]


def section(name: str, kept: Kept) -> list[str]:
    """One file."""
    if "findings" in kept:
        return doctor(kept)
    if "rows" in kept:
        return bench(kept)
    return [f"`pytest benchmarks/bench_{name}.py --device cuda`.", "", ratios(kept)]


def page(folder: Path = RESULTS) -> str:
    """Everything that was kept, device by device."""
    lines: list[str] = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = {
            path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("*.json"))
        }
        order = sorted(
            files, key=lambda name: ("findings" not in files[name], "rows" not in files[name], name)
        )
        for k, name in enumerate(order):
            lines += ["", f"## {name_of(files[name])}"] if k == 0 else []
            lines += ["", *section(name, files[name])]
    return "\n".join(lines[1:]) if lines else "Nobody has sent figures yet."


def main(arguments: list[str]) -> None:
    from benchmarks import report

    for path in arguments:
        print(f"kept {keep(Path(path))}")
    report.main([report.RESULTS])


if __name__ == "__main__":
    main(sys.argv[1:])
