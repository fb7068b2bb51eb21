"""Tables in Markdown from what the benchmarks kept; `benchmarks.report` puts them into pages."""

from __future__ import annotations

from typing import Any

Kept = dict[str, Any]
HEAD = "| case | ours, ms | rival | its time / ours | p10 to p90 | bar | bar reached? |\n|---|---|---|---|---|---|---|"


def named(comparison: Kept) -> str:
    """The name of the case, marked if too few of its rounds were undisturbed."""
    return comparison["name"] if comparison["quiet"] else f"{comparison['name']} (disturbed)"


def rows(comparison: Kept) -> list[str]:
    """One row per rival: the ratio of times, and whether it reaches the bar, where one is set."""
    bars = comparison["facts"].get("bar") or {}
    case, ours = named(comparison), f"{comparison['time_ms'][comparison['ours']]['median']:.4g}"
    lines = []
    for rival, ratio in comparison["speedup"].items():
        spread = f"{ratio['p10']:.2f} to {ratio['p90']:.2f}"
        cells = [case, ours, rival, f"{ratio['median']:.2f}", spread]
        cells += barred(ratio["median"], bars.get(rival))
        lines.append(f"| {' | '.join(cells)} |")
        case = ours = ""
    return lines


def barred(ratio: float, bar: float | None) -> list[str]:
    """The bar, and whether the ratio reaches it or what share of it; empty without a bar."""
    if bar is None:
        return ["", ""]
    return [f"{bar:.3g}", "reached" if ratio >= bar else f"{ratio / bar:.0%}"]


def listed(values: dict[str, float], form: str) -> str:
    """Names with their values."""
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def remarks(comparison: Kept) -> list[str]:
    """Remarks below the table: which rivals could not run; for whole networks also cold start, memory and error."""
    facts, name = comparison["facts"], comparison["name"]
    told = [f"{rival} is left out ({reason})" for rival, reason in facts.get("cannot", {}).items()]
    if facts.get("rates"):
        told.append(f"between the rounds the processor reached {rated(facts['rates'])}")
    if facts.get("standing"):
        drift = next(iter(facts["standing"].values()))
        scaled = f"scaled by {drift:.2f} (eager torch's time now / then)"
        told.append(f"from an earlier run on this machine, {scaled}: {', '.join(facts['standing'])}")
    lines = ["", f"{name}: {'; '.join(told)}."] if told else []
    if facts.get("cold_start_s") and facts.get("error"):
        lines += ["", *besides(comparison)]
    return lines


def rated(rates: dict[str, dict[str, float]]) -> str:
    """Rates of the processor with their spread, such as `read 20 [18 to 24] GB/s`."""
    found = []
    for name, spread in rates.items():
        what, unit = name.split(", ")
        found.append(f"{what} {spread['median']:.0f} [{spread['p10']:.0f} to {spread['p90']:.0f}] {unit}")
    return " and ".join(found)


#: How many times longer than ours the first result of a rival that also compiles should take.
COLD_BAR = {"torch.compile + freezing": 8.0}


def besides(comparison: Kept) -> list[str]:
    """A table of seconds to the first result and memory, for every way to run a network."""
    facts = comparison["facts"]
    ours = facts["cold_start_s"][comparison["ours"]]
    packed = facts.get("packed_mib", {})
    weights = f"MiB packed, next to {facts.get('weights_mib', 0):.0f} of weights"
    told = f"first result, s | its time / ours | bar | bar reached? | peak MiB | MiB while running | {weights} | error"
    head = f"{comparison['name']} | {told}"
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    for rival, seconds in facts["cold_start_s"].items():
        cells = [rival, f"{seconds:.1f}", "" if rival == comparison["ours"] else f"{seconds / ours:.1f}"]
        cells += barred(seconds / ours, COLD_BAR.get(rival))
        cells += [f"{facts[f][rival]:.0f}" if f in facts else "" for f in ("peak_mib", "resident_mib")]
        cells += [f"{packed[rival]:.0f}" if rival in packed else "", f"{facts['error'][rival]:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ratios(kept: Kept) -> str:
    """The machine and all comparisons of one file, a row for each rival."""
    facts = ", ".join(f"{name} {value}" for name, value in kept["machine"].items())
    lines = [line for comparison in kept["comparisons"] for line in rows(comparison)]
    told = [line for comparison in kept["comparisons"] for line in remarks(comparison)]
    for comparison in kept["comparisons"]:
        own = comparison["facts"].get("machine", kept["machine"])
        if own != kept["machine"]:
            told += ["", f"{comparison['name']} was measured on: {listed(own, '')}."]
    return "\n".join([f"Measured on: {facts}.", "", HEAD, *lines, *told])


def roofline(kept: Kept) -> str:
    """Rates of each op and their part of what copy and sgemm reach in the same rounds."""
    lines = ["| case | flop per byte | GFLOP/s | of sgemm | GB/s | of a copy |", "|---|---|---|---|---|---|"]
    for case in kept["comparisons"]:
        facts, seconds = case["facts"], case["time_ms"][case["ours"]]["median"] / 1e3
        product = case["speedup"]["sgemm"]["median"] * facts["flops"] / facts["sgemm_flops"]
        rates = f"{facts['flops'] / seconds / 1e9:.0f} | {product:.0%} | {facts['bytes'] / seconds / 1e9:.1f}"
        intensity = facts["flops"] / facts["bytes"]
        lines.append(
            f"| {named(case)} | {intensity:.3g} | {rates} | {case['speedup']['copy']['median']:.0%} |"
        )
    return "\n".join([f"Measured on: {listed(kept['machine'], '')}.", "", *lines])


#: Rows of the README: file and case.
HEADLINES = (
    ("network", "ddpm-cifar10 35.7 M, batch 1"),
    ("network", "ddpm-cifar10 35.7 M, batch 4"),
    ("network", "ddpm-cifar10 35.7 M, batch 16"),
    ("network", "lucidrains Unet(64) 64x64, batch 4"),
    ("network", "guided 64x64, batch 4"),
    ("sampling", "sample, ddpm-cifar10, batch 4, 50 DDIM steps"),
    ("sampling", "sample, fashion, batch 64, 50 DDIM steps"),
    ("vq", "vq_nearest, (65536, 1024, 64)"),
)
#: References that a row compares with, which do not compute the same thing.
YARDSTICKS = {"copy", "sgemm", "sgemm 2048"}


def is_rival(name: str) -> bool:
    """Whether it computes the same and is not ours in another mode."""
    return name not in YARDSTICKS and not name.startswith("fastdiff")


def headline(files: dict[str, Kept]) -> str:
    """The strongest rival of each case of `HEADLINES` that was measured."""
    lines = ["| float32 on two threads | ours, ms | strongest rival | its time / ours |", "|---|---|---|---|"]
    for file, name in HEADLINES:
        for case in files.get(file, {"comparisons": []})["comparisons"]:
            if case["name"] == name:
                rivals = {key: value for key, value in case["speedup"].items() if is_rival(key)}
                best = min(rivals, key=lambda key: rivals[key]["median"])
                spread = (
                    f"{rivals[best]['median']:.2f} [{rivals[best]['p10']:.2f}, {rivals[best]['p90']:.2f}]"
                )
                ours = f"{case['time_ms'][case['ours']]['median']:.4g}"
                lines.append(f"| {named(case)} | {ours} | {best} | {spread} |")
    return "\n".join(lines)


#: The case whose modes docs/engine.md shows, and what its options are called there.
MODES_OF = "ddpm-cifar10 35.7 M, batch 4"
MODES = {
    "fastdiff": "default",
    "fastdiff, memory low": '`memory="low"`',
    "fastdiff, winograd off": "`winograd=False`",
}


def modes(network: Kept) -> str:
    """Time and memory of the engine's modes, beside the strongest rival and eager torch; empty without that case."""
    cases = [case for case in network["comparisons"] if case["name"] == MODES_OF]
    if not cases:
        return ""
    case = cases[0]
    facts, ms = case["facts"], {name: spread["median"] for name, spread in case["time_ms"].items()}
    best = min((name for name in case["speedup"] if is_rival(name)), key=ms.__getitem__)
    weights = f"MiB packed, next to {facts['weights_mib']:.0f} of weights"
    lines = [f"| {named(case)} | ms | {best} / this | {weights} | peak MiB |", "|---|---|---|---|---|"]
    for name in dict.fromkeys([*(name for name in MODES if name in ms), best, "eager"]):
        packed = facts["packed_mib"].get(name)
        cells = [MODES.get(name, name), f"{ms[name]:.4g}", f"{ms[best] / ms[name]:.2f}"]
        cells += ["" if packed is None else f"{packed:.0f}", f"{facts['peak_mib'][name]:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def minutes(kept: Kept) -> str:
    """What each file of the suite took, and what went wrong."""
    lines = ["| file | seconds | planned |", "|---|---|---|"]
    lines += [f"| bench_{n}.py | {s:.0f} | {kept['budget_s'][n]} |" for n, s in kept["seconds"].items()]
    total, planned = sum(kept["seconds"].values()), sum(kept["budget_s"].values())
    lines.append(f"| all | {total:.0f} | {planned} |")
    lines += (
        ["", *(f"bench_{name}.py: {why}." for name, why in kept["wrong"].items())] if kept["wrong"] else []
    )
    return "\n".join([f"Measured on: {listed(kept['machine'], '')}.", "", *lines])


def solvers(kept: Kept) -> str:
    """Milliseconds by solver and evaluations."""
    (case,) = kept["comparisons"]
    times: dict[str, dict[int, float]] = {}
    for name, spread in case["time_ms"].items():
        solver, _, count = name.rpartition(", ")
        times.setdefault(solver, {})[int(count)] = spread["median"]
    counts = sorted({count for row in times.values() for count in row})
    lines = [f"| ms for {case['facts']['images']} images | {' | '.join(map(str, counts))} |"]
    lines.append("|---" * (len(counts) + 1) + "|")
    for solver, row in times.items():
        lines.append(
            f"| {solver} | {' | '.join(f'{row[count]:.0f}' if count in row else '' for count in counts)} |"
        )
    return "\n".join([f"Measured on: {listed(kept['machine'], '')}.", "", *lines])


def quality(report: Kept) -> str:
    """Class accuracy and Frechet distance by steps, as `fastdiff eval` tells them."""
    lines = [
        "| images | class accuracy | Fréchet distance | times that of real images |",
        "|---|---|---|---|",
    ]
    many = f"{report['num']:,}".replace(",", " ")
    lines.append(
        f"| {many} real training images | {report['real_accuracy']:.2%} | {report['real_distance']:.4f} | 1.0 |"
    )
    for row in report["rows"]:
        lines.append(
            f"| {row['steps']} steps | {row['accuracy']:.2%} | {row['distance']:.4f} | {row['ratio']:.1f} |"
        )
    return "\n".join(lines).replace("% |", " % |")
