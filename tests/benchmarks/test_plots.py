"""benchmarks/plots.py: the front by hand, and that pictures appear."""

from __future__ import annotations

import json

import pytest

from benchmarks import plots

pytest.importorskip("matplotlib")


def test_the_front_is_what_nothing_beats():
    points = [(3.0, 1.0), (1.0, 5.0), (2.0, 6.0), (2.0, 2.0), (4.0, 1.0)]
    assert plots.front(points) == [(1.0, 5.0), (2.0, 2.0), (3.0, 1.0)]
    assert plots.front([]) == []


def test_a_picture_for_every_file_of_comparisons_and_one_of_quality(tmp_path):
    spread = {"median": 2.0, "p10": 1.5, "p90": 2.5}
    case = {"name": "a", "ours": "fastdiff", "time_ms": {}, "speedup": {"eager": spread, "compile": spread}}
    kept = {"machine": {"processor": "x", "threads": 2}, "comparisons": [case, case | {"name": "b"}]}
    (tmp_path / "ops.json").write_text(json.dumps(kept))
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "solver_quality.json").write_text((plots.RESULTS / "solver_quality.json").read_text())
    plots.main(tmp_path, tmp_path / "img")
    made = {path.name: path.stat().st_size for path in (tmp_path / "img").iterdir()}
    assert set(made) == {"bench_speedup_ops.png", "bench_solver_quality.png"} and min(made.values()) > 5000
