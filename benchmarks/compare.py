"""Two measurements of the same cases: how much slower or faster is the newer one, and is that more than noise?

    python -m benchmarks.compare OLD.json NEW.json [--threshold 1.05]
    python -m benchmarks.compare --commits main HEAD [--select bench_vq.py] [--only sums] [--rounds 2]

A case is slower when the ratio of its times is above the threshold and the spreads (10th to 90th percentile) do not
meet. Where both files hold the same rivals, our time is first divided by theirs, so that a machine that was slower on
that day does not count. Exit status: 0 nothing is slower, 1 something is, 2 nothing could be compared, or a
commit could not be measured. Commits are checked out and built in a folder of their own; yours is not touched.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTHING = 2


@dataclass(frozen=True)
class Change:
    """new / old time of one case, with the lowest and highest ratio that the spreads allow."""

    name: str
    ratio: float
    low: float
    high: float
    by_rivals: bool

    def slower(self, threshold: float) -> bool:
        """Whether it is slower by more than the threshold and more than its noise."""
        return self.ratio > threshold and self.low > 1

    def line(self, threshold: float) -> str:
        """As a line of the table."""
        verdict = "SLOWER" if self.slower(threshold) else "faster" if self.high < 1 / threshold else ""
        how = "against the rivals" if self.by_rivals else "plain times"
        return f"{self.ratio:6.3f}  [{self.low:.3f}, {self.high:.3f}]  {self.name} ({how}) {verdict}".rstrip()


def change(old: dict[str, Any], new: dict[str, Any]) -> Change:
    """The change of one case."""
    rivals = sorted(set(old["speedup"]) & set(new["speedup"]))
    if rivals:  # rival / ours: the smaller it got, the slower we are

        def mean(case: dict[str, Any], part: str) -> float:
            return math.exp(sum(math.log(case["speedup"][name][part]) for name in rivals) / len(rivals))

        low, high = mean(old, "p10") / mean(new, "p90"), mean(old, "p90") / mean(new, "p10")
        return Change(new["name"], mean(old, "median") / mean(new, "median"), low, high, True)
    before, after = (case["time_ms"][case["ours"]] for case in (old, new))
    ratio, low, high = (after[a] / before[b] for a, b in (("median",) * 2, ("p10", "p90"), ("p90", "p10")))
    return Change(new["name"], ratio, low, high, False)


def compared(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """Changes of the cases that both hold, and what stands in only one of them."""
    before, after = ({case["name"]: case for case in kept["comparisons"]} for kept in (old, new))
    both = [name for name in after if name in before]
    lone = [f"only in the old: {name}" for name in before if name not in after]
    lone += [f"only in the new: {name}" for name in after if name not in before]
    return [change(before[name], after[name]) for name in both], lone


def report(old: dict[str, Any], new: dict[str, Any], threshold: float) -> int:
    """Print the table; the exit status."""
    changes, lone = compared(old, new)
    for key in sorted(set(old["machine"]) | set(new["machine"])):
        if old["machine"].get(key) != new["machine"].get(key):
            print(f"{key}: {old['machine'].get(key)} before, {new['machine'].get(key)} now")
    print("new/old  [10th, 90th]  case")
    for one in sorted(changes, key=lambda one: -one.ratio):
        print(one.line(threshold))
    print("\n".join(lone))
    if not changes:
        return NOTHING
    return 1 if any(one.slower(threshold) for one in changes) else 0


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True)


def checked_out(commit: str, folder: Path) -> Path:
    """A worktree of the commit, built in place, without the results that it keeps."""
    _git("worktree", "add", "--detach", str(folder), commit)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)
    for path in (folder / "benchmarks" / "results").glob("*.json"):
        path.unlink()
    return folder


def measured(folder: Path, select: str, only: str = "") -> dict[str, Any]:
    """What a commit's own benchmarks say."""
    command = [sys.executable, "-m", "pytest", f"benchmarks/{select}", "--benchmark-only", "-q"]
    command += ["-k", only] if only else []
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=True)
    found = (folder / "benchmarks" / "results").glob("*.json")
    return joined([json.loads(path.read_text(encoding="utf-8")) for path in found])


def joined(kept: list[dict[str, Any]]) -> dict[str, Any]:
    """Several files as one; of a case measured several times the median run."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for one in kept:
        for case in one.get("comparisons", ()):
            runs.setdefault(case["name"], []).append(case)
    middle = [
        sorted(cases, key=lambda c: c["time_ms"][c["ours"]]["median"])[len(cases) // 2]
        for cases in runs.values()
    ]
    return {"machine": kept[0]["machine"] if kept else {}, "comparisons": middle}


def of_commits(
    commits: tuple[str, str], select: str, rounds: int, only: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both commits, measured in turns.

    Raises:
        subprocess.CalledProcessError: a commit is not known, cannot be built, or a case of it fails.
    """
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(k) for k in range(len(commits))]
        runs: list[list[dict[str, Any]]] = [[] for _ in commits]
        try:
            for commit, folder in zip(commits, folders, strict=True):
                checked_out(commit, folder)
            for _ in range(rounds):
                for own, folder in zip(runs, folders, strict=True):
                    own.append(measured(folder, select, only))
        finally:
            for folder in folders:
                if folder.exists():
                    _git("worktree", "remove", "--force", str(folder))
    old, new = map(joined, runs)
    return old, new


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--threshold", type=float, default=1.05, help="slower than so many times is too slow")
    parser.add_argument("--commits", action="store_true", help="OLD and NEW are commits, not files")
    parser.add_argument("--select", default="", help="with --commits: the file of benchmarks/ to run")
    parser.add_argument("--only", default="", help="with --commits: the cases to run, as pytest's -k")
    parser.add_argument("--rounds", type=int, default=2, help="with --commits: how often each is measured")
    options = parser.parse_args(arguments)
    if options.commits:
        try:
            old, new = of_commits((options.old, options.new), options.select, options.rounds, options.only)
        except subprocess.CalledProcessError as error:
            print(
                f"{' '.join(map(str, error.cmd))}: status {error.returncode}", (error.stderr or b"").decode()
            )
            return NOTHING
    else:
        old, new = (json.loads(Path(name).read_text(encoding="utf-8")) for name in (options.old, options.new))
    return report(old, new, options.threshold)


if __name__ == "__main__":
    sys.exit(main())
