"""Frechet distance by evaluations on the shipped model, for solvers and spacings: docs/solvers.md and its plot.

    python -m benchmarks.solver_quality                  draws, judges, writes results/solver_quality.json, table, plot
    python -m benchmarks.solver_quality --plot-only      writes docs/img/solvers_quality.png and prints the table
    python -m benchmarks.solver_quality --num 20 --results out/quality      a trial, kept apart

Image i has class i modulo 10 and seed i in every row. Rows that the JSON file holds for the same weights, number of
images, seed and precision are not drawn again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fastdiff.evaluation import load_classifier
from fastdiff.evaluation.evaluate import Judge
from fastdiff.model import load
from fastdiff.sampling import optimized_times, sample
from fastdiff.weights import ASSETS, CONFIG

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PLOT = HERE.parent / "docs" / "img" / "solvers_quality.png"
#: Name of a row in table and plot, solver, spacing.
ENTRIES = {
    "ddim": ("ddim", "trailing"),
    "dpmpp_2m": ("dpmpp_2m", "trailing"),
    "unipc": ("unipc", "trailing"),
    "ipndm": ("ipndm", "trailing"),
    "ipndm, optimised steps": ("ipndm", "optimized"),
}
#: In this order, so that a run that is stopped early has the most telling rows.
EVALUATIONS = (10, 5, 8, 20, 50)


def rows_wanted() -> list[tuple[str, int]]:
    few = [(name, count) for count in EVALUATIONS[:3] for name in ENTRIES]
    return [
        ("ddim", 50),
        *few,
        *[(name, n) for n in EVALUATIONS[3:] for name in ENTRIES if (name, n) != ("ddim", 50)],
    ]


def kept(facts: dict, path: Path) -> dict:
    if path.exists():
        report = json.loads(path.read_text())
        if all(report.get(name) == value for name, value in facts.items()):
            return report
    return {**facts, "rows": []}


def measure(options: argparse.Namespace, path: Path) -> None:
    model = load(options.model)
    model.net.to(memory_format=torch.channels_last)
    torch.set_num_threads(options.threads)
    weights = json.loads((ASSETS / options.model / CONFIG).read_text())["sha256"]
    named = {name: getattr(options, name) for name in ("model", "num", "seed", "dtype")}
    facts = {**named, "sha256": weights}
    judge = Judge(load_classifier(), options.data, options.num)
    first, parts = (int(number) for number in options.part.split("/"))
    for name, evaluations in rows_wanted()[first::parts]:
        if any((row["name"], row["evaluations"]) == (name, evaluations) for row in kept(facts, path)["rows"]):
            print(f"{name:<24}{evaluations:>4}  kept from an earlier run", flush=True)
            continue
        solver, spacing = ENTRIES[name]
        choice = {"solver": solver, "spacing": spacing, "dtype": getattr(torch, options.dtype)}
        if spacing == "optimized":  # found in float32, before the clock runs
            print(evaluations, "optimised times:", optimized_times(options.model, evaluations), flush=True)

        def draw(count: int, labels: Tensor, first: int, choice: dict = choice) -> Tensor:
            return sample(model, count, num=len(labels), labels=labels, seed=first, **choice)

        row = judge.row(draw, evaluations, seed=options.seed, batch=options.batch)
        report = kept(facts, path)  # another process may have added its rows
        report["rows"].append({"name": name, "evaluations": evaluations, **asdict(row)})
        report["real_distance"] = judge.real_distance
        print(
            f"{name:<24}{evaluations:>4}{row.distance:>9.4f}{row.accuracy:>9.2%}{row.seconds:>8.1f} s",
            flush=True,
        )
        report["finished"] = time.strftime("%Y-%m-%d")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{first}.tmp")
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(path)


def table(report: dict) -> str:
    counts = sorted(EVALUATIONS)
    found = {(row["name"], row["evaluations"]): row for row in report["rows"]}
    lines = [f"| evaluations | {' | '.join(map(str, counts))} |", "|---" * (len(counts) + 1) + "|"]
    for name in ENTRIES:
        cells = [f"{found[name, n]['distance']:.3f}" if (name, n) in found else "" for n in counts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(report: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name in ENTRIES:
        rows = sorted((r["evaluations"], r["distance"]) for r in report["rows"] if r["name"] == name)
        axes.plot(*zip(*rows), marker="o", label=name)
    reference = next(r["distance"] for r in report["rows"] if (r["name"], r["evaluations"]) == ("ddim", 50))
    axes.axhline(reference, color="grey", linestyle=":", label="ddim at 50")
    axes.axhline(report["real_distance"], color="black", linestyle="--", label="as many real images")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel="Frechet distance")
    axes.set_xticks(sorted(EVALUATIONS), [str(n) for n in sorted(EVALUATIONS)])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fashion")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument(
        "--part", default="0/1", help="I/N: every N-th row from the I-th, for N processes at once"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--plot-only", action="store_true")
    options = parser.parse_args()
    path = options.results / "solver_quality.json"
    if not options.plot_only:
        measure(options, path)
    report = json.loads(path.read_text())
    print(table(report))
    plot(report, PLOT if options.results == RESULTS else options.results / PLOT.name)


if __name__ == "__main__":
    main()
