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


def remarks(comparison: dict[str, Any]) -> list[str]:
    """What a comparison of whole networks tells besides: seconds to the first result, and our error."""
    cold, error = (comparison["facts"].get(name) for name in ("cold_start_s", "error"))
    if not cold or not error:
        return []
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in cold.items())
    ours = error[comparison["ours"]]
    return [
        "",
        f"{comparison['name']}: seconds to the first result: {seconds}; our largest error {ours:.1e}.",
    ]


def table(kept: dict[str, Any]) -> str:
    """The machine and all comparisons of one file."""
    facts = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    lines = [line for comparison in kept["comparisons"] for line in rows(comparison)]
    told = [line for comparison in kept["comparisons"] for line in remarks(comparison)]
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
