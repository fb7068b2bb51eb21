"""benchmarks/compare.py: ratios by hand, noise, and the exit status."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import compare


def spread(median, noise=0.02):
    return {"median": median, "p10": median * (1 - noise), "p90": median * (1 + noise)}


def case(name, ours_ms, noise=0.02, **rivals_ms):
    times = {"fastdiff": ours_ms, **rivals_ms}
    return {
        "name": name,
        "ours": "fastdiff",
        "time_ms": {rival: spread(ms, noise) for rival, ms in times.items()},
        "speedup": {rival: spread(ms / ours_ms, noise) for rival, ms in rivals_ms.items()},
    }


def file(tmp_path, name, *cases, **machine):
    path = tmp_path / name
    path.write_text(json.dumps({"machine": machine, "comparisons": list(cases)}))
    return str(path)


def status(tmp_path, old, new, *options):
    return compare.main([file(tmp_path, "old.json", *old), file(tmp_path, "new.json", *new), *options])


def test_slower_beyond_noise_is_status_1(tmp_path, capsys):
    assert status(tmp_path, [case("a", 1.0)], [case("a", 1.2)]) == 1
    assert "1.200" in capsys.readouterr().out
    assert status(tmp_path, [case("a", 1.0)], [case("a", 1.2)], "--threshold", "1.3") == 0


def test_slower_within_its_noise_is_not(tmp_path):
    assert status(tmp_path, [case("a", 1.0, noise=0.3)], [case("a", 1.2, noise=0.3)]) == 0


def test_faster_is_status_0(tmp_path, capsys):
    assert status(tmp_path, [case("a", 1.2)], [case("a", 1.0)]) == 0
    assert "faster" in capsys.readouterr().out


def test_a_slow_day_is_seen_by_the_rivals(tmp_path, capsys):
    """Everything takes twice as long: no change. We alone do: slower."""
    before = case("a", 1.0, eager=3.0, compiled=2.0)
    assert status(tmp_path, [before], [case("a", 2.0, eager=6.0, compiled=4.0)]) == 0
    assert "1.000" in capsys.readouterr().out
    assert status(tmp_path, [before], [case("a", 2.0, eager=3.0, compiled=2.0)]) == 1


def test_nothing_in_common_is_status_2_and_told(tmp_path, capsys):
    assert status(tmp_path, [case("a", 1.0)], [case("b", 1.0)]) == 2
    told = capsys.readouterr().out
    assert "only in the old: a" in told and "only in the new: b" in told


def test_of_several_runs_the_middle_one_counts():
    runs = [{"machine": {"cores": 2}, "comparisons": [case("a", ms)]} for ms in (3.0, 1.0, 2.0)]
    assert compare.joined(runs)["comparisons"][0]["time_ms"]["fastdiff"]["median"] == 2.0


#: A repository in small: a case whose time is written in it, kept as benchmarks/conftest.py does.
BENCH = """
import json, pathlib
def test_case(): pass
spread = dict(median={ms}, p10={ms}, p90={ms})
case = dict(name="case", ours="fastdiff", time_ms=dict(fastdiff=spread), speedup=dict())
folder = pathlib.Path(__file__).parent / "results"
folder.joinpath("toy.json").write_text(json.dumps(dict(machine=dict(), comparisons=[case])))
"""


@pytest.fixture
def commits(tmp_path, monkeypatch):
    """Three commits of a repository: 1 ms, 2 ms, and one that fails; stale results are kept in each."""
    root = tmp_path / "repository"
    (root / "benchmarks" / "results").mkdir(parents=True)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    (root / "setup.py").write_text("")
    (root / "benchmarks" / "results" / "stale.json").write_text('{"comparisons": [{"name": "stale"}]}')
    names = []
    for text in (BENCH.format(ms=1.0), BENCH.format(ms=2.0), "raise RuntimeError"):
        (root / "benchmarks" / "test_toy.py").write_text(text)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "toy"], check=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        names.append(found.stdout.strip())
    monkeypatch.setattr(compare, "ROOT", root)
    return names


def test_commits_are_compared_and_nothing_is_left_behind(commits, capsys, monkeypatch):
    fast, slow, failing = commits
    monkeypatch.delenv(
        "PYTEST_XDIST_WORKER", raising=False
    )  # pytest-benchmark measures nothing in such a process

    def run(old, new, *options):
        # pytest-benchmark would skip what is no benchmark; the toy's rows are written when it is imported
        return compare.main([old, new, "--commits", "--select", "test_toy.py", "--rounds", "1", *options])

    assert run(fast, slow) == 1
    told = capsys.readouterr().out
    assert " 2.000" in told and "SLOWER" in told and "stale" not in told
    assert run(slow, fast, "--threshold", "1.5") == 0 and "faster" in capsys.readouterr().out
    assert run(fast, failing) == compare.NOTHING and "status" in capsys.readouterr().out
    assert run(fast, "no-such-commit") == compare.NOTHING
    trees = subprocess.run(
        ["git", "-C", str(compare.ROOT), "worktree", "list"], capture_output=True, text=True
    )
    assert len(trees.stdout.splitlines()) == 1


@pytest.mark.slow
def test_two_commits_by_worktree():
    """HEAD against itself: built twice, measured in turns, nothing left behind."""
    old, new = compare.of_commits(("HEAD", "HEAD"), "bench_solver_step.py", 1, "normal")
    changes, lone = compare.compared(old, new)
    assert len(changes) == 2 and not lone
