"""Writes the tables of docs/benchmarks.md from what `make bench` kept: python -m benchmarks.report

Each file of benchmarks/results with comparisons becomes one table, put between its two marks in the page; the words
around the marks are written by hand, the rows never.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = "| case | ours, ms | ratio over | median | p10 to p90 | bar | |\n|---|---|---|---|---|---|---|"


def rows(comparison: dict[str, Any]) -> list[str]:
    """One row per rival: the ratio of times, and whether it reaches the bar, where one is set."""
    bars = comparison["facts"].get("bar") or {}
    case, ours = comparison["name"], f"{comparison['time_ms'][comparison['ours']]['median']:.4g}"
    if not comparison["quiet"]:
        case += " (disturbed)"
    lines = []
    for rival, ratio in comparison["speedup"].items():
        bar = bars.get(rival)
        reached = (
            "" if bar is None else "reached" if ratio["median"] >= bar else f"{ratio['median'] / bar:.0%}"
        )
        wanted = "" if bar is None else f"{bar:.3g}"
        spread = f"{ratio['p10']:.2f} to {ratio['p90']:.2f}"
        lines.append(
            f"| {case} | {ours} | {rival} | {ratio['median']:.2f} | {spread} | {wanted} | {reached} |"
        )
        case = ours = ""
    return lines


def listed(values: dict[str, float], form: str) -> str:
    """Names with their values."""
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def remarks(comparison: dict[str, Any]) -> list[str]:
    """What a comparison of whole networks tells besides: seconds to the first result, memory, who could not run."""
    facts = comparison["facts"]
    if not facts.get("cold_start_s") or not facts.get("error"):
        return []
    told = [f"seconds to the first result: {listed(facts['cold_start_s'], '.1f')}"]
    told.append(f"our largest error {facts['error'][comparison['ours']]:.1e}")
    if "peak_mib" in facts:
        told.append(f"MiB at most: {listed(facts['peak_mib'], '.0f')}")
        told.append(f"MiB while it runs: {listed(facts['resident_mib'], '.0f')}")
        told.append(
            f"MiB packed beside {facts['weights_mib']:.0f} of weights: {listed(facts['packed_mib'], '.0f')}"
        )
    told += [f"{name} is left out: {reason}" for name, reason in facts.get("cannot", {}).items()]
    if facts.get("reused"):
        told.append(f"times of an earlier run on this machine: {', '.join(facts['reused'])}")
    return ["", f"{comparison['name']}: {'; '.join(told)}."]


def table(kept: dict[str, Any]) -> str:
    """The machine and all comparisons of one file."""
    facts = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    lines = [line for comparison in kept["comparisons"] for line in rows(comparison)]
    told = [line for comparison in kept["comparisons"] for line in remarks(comparison)]
    for comparison in kept["comparisons"]:
        own = comparison["facts"].get("machine", kept["machine"])
        if own != kept["machine"]:
            told += ["", f"{comparison['name']} was measured on: {listed(own, '')}."]
    return "\n".join([f"Measured on: {facts}.", "", HEAD, *lines, *told])


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with every table between its marks made anew; a table whose file is missing stays as it is."""

    def made(match: re.Match[str]) -> str:
        path = results / f"{match[1]}.json"
        if not path.is_file():
            return match[0]
        text = table(json.loads(path.read_text(encoding="utf-8")))
        return f"<!-- {match[1]}.json -->\n{text}\n<!-- end -->"

    return re.sub(r"<!-- (\w+)\.json -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
