"""`fastdiff eval` of the shipped model, row by row: python -m benchmarks.fashion_eval [--num N] [--results FOLDER]

Rows that results/fashion_eval.json holds for the same weights, number of images and seed are not drawn again, so a run
that was stopped goes on. The table stands in the README.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fastdiff.evaluation import evaluate
from fastdiff.weights import ASSETS, CONFIG

RESULTS = Path(__file__).parent / "results"
MODEL = "fashion"
STEPS = (10, 20, 50, 100)


def facts(num: int) -> dict[str, Any]:
    """What a row depends on."""
    weights = json.loads((ASSETS / MODEL / CONFIG).read_text(encoding="utf-8"))["sha256"]
    return {
        **{"model": MODEL, "num": num, "guidance": 1.0, "solver": "ddim", "seed": 0},
        "sha256": weights,
    }


def kept(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The report so far, without rows if it is of something else."""
    if path.is_file():
        report = json.loads(path.read_text(encoding="utf-8"))
        if all(report.get(name) == value for name, value in wanted.items()):
            return report  # type: ignore[no-any-return]
    return {**wanted, "rows": []}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    path = options.results / "fashion_eval.json"
    wanted = facts(options.num)
    for steps in STEPS:
        report = kept(path, wanted)
        if any(row["steps"] == steps for row in report["rows"]):
            print(f"fashion_eval: {steps} steps are kept from an earlier run", flush=True)
            continue
        found = evaluate(MODEL, steps=(steps,), num=options.num).to_dict()
        rows = sorted([*report["rows"], *found["rows"]], key=lambda row: row["steps"])
        report |= {name: value for name, value in found.items() if name != "rows"}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**report, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
        print(f"fashion_eval: {steps} steps took {found['rows'][0]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
