"""Writes the measured tables into the docs: python -m benchmarks.report [FOLDER ...]

A folder holds the files of one machine; the default is benchmarks/results. The tables between the marks in
docs/benchmarks.md, docs/engine.md, docs/gpu_results.md and the README are regenerated, one for each folder that has the
file. The text around the marks is written by hand, the rows never are. If matplotlib is installed, pictures are drawn
from the first folder.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gpu_results, tables

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
WRITTEN = ("benchmarks.md", "engine.md", "gpu_results.md")
PAGES = (*(ROOT / "docs" / name for name in WRITTEN), ROOT / "README.md")
#: Tables that are not rows of ratios, by the name between the marks: its maker and the file it is made of.
OTHER = {
    "roofline": tables.roofline,
    "fashion_eval": tables.quality,
    "solvers": tables.solvers,
    "suite": tables.minutes,
}


def files(folder: Path) -> dict[str, tables.Kept]:
    """The results of one machine by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def filled(page: str, folders: Sequence[Path] = (RESULTS,)) -> str:
    """The page with every table between its marks made anew; a table whose file is missing stays as it is."""
    machines = [files(folder) for folder in folders]

    def made(match: re.Match[str]) -> str:
        name = match[1]
        if name == "headline":
            found = [tables.headline(machines[0])]
        elif name == "modes":
            made_of = [tables.modes(kept["network"]) for kept in machines if "network" in kept]
            found = [table for table in made_of if table]
        elif name == "gpu":
            found = [gpu_results.page()]
        else:
            found = [OTHER.get(name, tables.ratios)(kept[name]) for kept in machines if name in kept]
        if not found:
            return match[0]
        return "\n".join([match[0].splitlines()[0], "\n\n".join(found), "<!-- end -->"])

    return re.sub(r"<!-- (\w+)(?:\.json)? -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def main(folders: Sequence[Path]) -> None:
    """Fill the pages and draw the pictures."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), folders), encoding="utf-8")
        print(f"wrote {page}")
    if importlib.util.find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed (extra: plot)")
        return
    from benchmarks import plots

    plots.main(folders[0])


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or [RESULTS])
