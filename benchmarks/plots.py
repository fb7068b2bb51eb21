"""Pictures from what the benchmarks kept: python -m benchmarks.plots

docs/img/bench_speedup_NAME.png: times faster than each rival, case by case, for every results/NAME.json of comparisons.
docs/img/bench_roofline.png: the rate of each op below what copy and sgemm reached in the same run.
docs/img/bench_growth.png: cost by batch, by size and by steps.
docs/img/bench_solver_quality.png: quality of the shipped model's images against evaluations and against seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.tables import is_rival

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs" / "img"
#: Inches; a README column is about nine wide.
WIDTH = 9.0
#: Ratios beyond this are cut, or the axis is logarithmic if they are more than this part of all.
WIDE, FEW = 6.0, 0.1


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both coordinates, from left to right; less is better."""
    kept: list[tuple[float, float]] = []
    for cost, value in sorted(points):
        if not kept or value < kept[-1][1]:
            kept.append((cost, value))
    return kept


def speedup(kept: dict[str, Any], path: Path) -> None:
    """Bars of rival / ours with their 10th and 90th percentile; 1 is a line.

    A few bars that are far longer than the rest are cut and say their length; many make the axis logarithmic, and bars
    then begin at 1.
    """
    pyplot = _pyplot()
    cases = [
        case | {"speedup": {k: v for k, v in case["speedup"].items() if is_rival(k)}}
        for case in kept["comparisons"]
    ]
    ratios = [ratio for case in cases for ratio in case["speedup"].values()]
    rivals = list(dict.fromkeys(name for case in cases for name in case["speedup"]))
    few = sum(ratio["median"] > WIDE for ratio in ratios) <= FEW * len(ratios)
    end = max((r["p90"] for r in ratios if not few or r["median"] <= WIDE), default=WIDE)
    lines = len(ratios) + len(cases)
    figure, axes = pyplot.subplots(figsize=(WIDTH, 1.2 + 0.2 * lines))
    colours = dict(zip(rivals, pyplot.get_cmap("tab10").colors * 3, strict=False))
    place, ticks = 0.0, []
    for case in cases:
        first = place
        for rival, ratio in case["speedup"].items():
            _bar(axes, place, ratio, colours[rival], 0 if few else 1, end)
            place += 1
        ticks.append(((first + place - 1) / 2, case["name"]))
        place += 1
    axes.set_yticks(*zip(*ticks, strict=True), fontsize=8)
    axes.set_ylim(place - 0.5, -1)
    if few:
        axes.set_xlim(0, end * 1.15)
    else:
        low = min(0.9, *(ratio["p10"] for ratio in ratios))
        axes.set_xscale("log")
        axes.set_xlim(low, end * 1.4)
        _plain_ticks(axes.xaxis, low, end)
    axes.axvline(1, color="black", linewidth=1)
    machine = f"{kept['machine']['processor']}, {kept['machine']['threads']} threads"
    axes.set_xlabel(f"time of the rival / ours: right of 1 we are faster\n{machine}")
    bars = [pyplot.Rectangle((0, 0), 1, 1, color=colours[name]) for name in rivals]
    axes.legend(bars, rivals, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1))
    _saved(figure, path)


def _bar(axes: Any, place: float, ratio: dict[str, float], colour: Any, start: float, end: float) -> None:
    """One bar with its spread and its number, cut at the end of the axis."""
    median, cut = ratio["median"], ratio["median"] > end
    length = min(median, end)
    reach = None if cut else [[median - ratio["p10"]], [ratio["p90"] - median]]
    axes.barh(place, length - start, left=start, xerr=reach, height=0.9, color=colour, ecolor="0.3")
    text = f"{median:.2f} →" if cut else f"{median:.2f}"
    beside = end if cut else max(ratio["p90"], start)
    axes.text(beside * 1.02, place, text, va="center", fontsize=8)


def _plain_ticks(axis: Any, low: float, high: float) -> None:
    """1, 2, 5, 10 ... instead of powers of ten; 3 as well where that leaves room."""
    digits = (1, 2, 3, 5) if high < 1e3 * low else (1, 2, 5)
    marks = [digit * 10.0**power for power in range(-3, 6) for digit in digits]
    marks = [mark for mark in marks if low <= mark <= high]
    axis.set_ticks(marks, [f"{mark:g}" for mark in marks])
    axis.set_minor_locator(_pyplot().NullLocator())


def roofline(kept: dict[str, Any], path: Path) -> None:
    """Rate against flops per byte; the roofs are the medians of copy and sgemm over the cases, in cache and beyond."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 5))
    cases = kept["comparisons"]
    peak = max(case["facts"]["sgemm_flops"] / case["time_ms"]["sgemm"]["median"] / 1e6 for case in cases)
    copies = [case["facts"]["bytes"] / case["time_ms"]["copy"]["median"] / 1e6 for case in cases]
    reach = [0.2, 2e3]
    for label, bandwidth, style in (("fastest", max(copies), "-"), ("slowest", min(copies), "--")):
        roof = [min(peak, bandwidth * x) for x in (reach[0], peak / bandwidth, reach[1])]
        line = (reach[0], peak / bandwidth, reach[1])
        axes.plot(
            line,
            roof,
            style,
            color="0.4",
            label=f"sgemm {peak:.0f} GFLOP/s, {label} copy {bandwidth:.0f} GB/s",
        )
    for k, case in enumerate(cases):
        x = case["facts"]["flops"] / case["facts"]["bytes"]
        y = case["facts"]["flops"] / case["time_ms"][case["ours"]]["median"] / 1e6
        marker = "osD^vP*Xd<>"[k % 11]
        axes.plot(x, y, marker, markersize=9, label=case["name"])
    axes.set(xscale="log", yscale="log", xlabel="flop per byte that has to move", ylabel="GFLOP/s")
    _plain_ticks(axes.xaxis, *axes.get_xlim())
    _plain_ticks(axes.yaxis, *axes.get_ylim())
    axes.legend(fontsize=8, loc="lower right")
    _saved(figure, path)


def growth(kept: dict[str, Any], path: Path) -> None:
    """Milliseconds by what grew, a panel for each."""
    pyplot = _pyplot()
    panels = {"batch": "images of 32x32", "size": "pixels of a side, batch 2", "steps": "steps, 16 images"}
    figure, all_axes = pyplot.subplots(1, len(panels), figsize=(WIDTH, 3.6))
    for axes, (axis, label) in zip(all_axes, panels.items(), strict=True):
        found = {c["facts"]["value"]: c for c in kept["comparisons"] if c["facts"]["axis"] == axis}
        if axis == "size":  # two images of 32x32 are among the batches
            pairs = [
                c for c in kept["comparisons"] if c["facts"]["axis"] == "batch" and c["facts"]["value"] == 2
            ]
            found |= {32: pairs[0]} if pairs else {}
        values = sorted(found)
        cases = [found[value] for value in values]
        for name in dict.fromkeys(name for case in cases for name in case["time_ms"]):
            times = [case["time_ms"][name]["median"] for case in cases]
            axes.plot(values, times, marker="o", label=name)
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
        _plain_ticks(axes.yaxis, *axes.get_ylim())
        if cases:  # a run that was cut off has no steps
            axes.legend(fontsize=8)
    all_axes[0].set_ylabel("ms")
    _saved(figure, path)


def seconds_of(results: Path) -> dict[tuple[str, int], float]:
    """(solver, evaluations) -> seconds an image, as bench_solvers.py measured them."""
    path = results / "solvers.json"
    if not path.is_file():
        return {}
    (case,) = json.loads(path.read_text(encoding="utf-8"))["comparisons"]
    named = {name.rpartition(", "): spread["median"] for name, spread in case["time_ms"].items()}
    return {(name, int(count)): ms / 1e3 / case["facts"]["images"] for (name, _, count), ms in named.items()}


def quality(report: dict[str, Any], path: Path, seconds: dict[tuple[str, int], float]) -> None:
    """Frechet distance against evaluations, and against seconds with the front of what nothing beats."""
    pyplot = _pyplot()
    report["rows"] = [
        row
        | {
            "seconds": report["num"]
            * seconds.get((row["name"], row["evaluations"]), row["seconds"] / report["num"])
        }
        for row in report["rows"]
    ]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(WIDTH, 4), sharey=True)
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"]:
        by_name.setdefault(row["name"], []).append(row)
    for name, rows in by_name.items():
        rows.sort(key=lambda row: row["evaluations"])
        distances = [row["distance"] for row in rows]
        left.plot([row["evaluations"] for row in rows], distances, marker="o", label=name)
        right.plot([row["seconds"] for row in rows], distances, "o", label=name)
    best = front([(row["seconds"], row["distance"]) for row in report["rows"]])
    right.plot(*zip(*best, strict=True), color="black", linewidth=1, zorder=0)
    left.set(xlabel="network evaluations", ylabel=f"Frechet distance, {report['num']} images", xscale="log")
    counts = sorted({row["evaluations"] for row in report["rows"]})
    left.set_xticks(counts, [str(count) for count in counts])
    left.minorticks_off()
    right.set(xlabel=f"seconds for {report['num']} images", xscale="log", yscale="log")
    _plain_ticks(right.xaxis, *right.get_xlim())
    _plain_ticks(left.yaxis, *left.get_ylim())
    left.legend(fontsize=8)
    _saved(figure, path)


#: Files with a picture of their own, and such as have none.
OTHER = {"roofline": roofline, "growth": growth}
WITHOUT = {"solvers"}


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _saved(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    _pyplot().close(figure)
    print(f"wrote {path}")


def main(results: Path = RESULTS, images: Path = IMAGES) -> None:
    for path in sorted(results.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if path.stem in OTHER:
            OTHER[path.stem](kept, images / f"bench_{path.stem}.png")
        elif path.stem == "solver_quality":
            quality(kept, images / f"bench_{path.stem}.png", seconds_of(results))
        elif kept.get("comparisons") and path.stem not in WITHOUT:
            speedup(kept, images / f"bench_speedup_{path.stem}.png")


if __name__ == "__main__":
    main()
