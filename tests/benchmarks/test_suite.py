"""The suite: every file is in it, and none can take the others with it."""

import sys
import time

from benchmarks import suite, tables


def test_every_file_has_a_budget_and_all_fit_in_40_minutes():
    files = {path.stem.removeprefix("bench_") for path in suite.HERE.glob("bench_*.py")}
    assert set(suite.BUDGET_S) == {name for name in files if not name.endswith("_gpu")}
    assert sum(suite.BUDGET_S.values()) <= suite.WHOLE_S <= 2400


def test_a_file_that_fails_crashes_or_hangs_does_not_end_the_others():
    code = {
        "fails": "raise SystemExit(1)",
        "crashes": "import os; os.abort()",
        "hangs": "import time; time.sleep(60)",
        "selects nothing": "raise SystemExit(5)",
        "last": "",
    }
    commands = {name: [sys.executable, "-S", "-c", text] for name, text in code.items()}
    found = suite.run(commands, dict.fromkeys(code, 5.0) | {"hangs": 0.25})
    assert found.wrong == {
        "fails": "failed: status 1",
        "crashes": "crashed: signal 6",
        "hangs": "ended after 0 s",
    }
    assert list(found.seconds) == list(code)
    assert any(line.startswith("crashes") and line.endswith("signal 6") for line in found.told())


def test_nothing_is_begun_when_the_time_is_over():
    commands = {name: [sys.executable, "-S", "-c", "import time; time.sleep(20)"] for name in ("a", "b")}
    found = suite.run(commands, {"a": 9.0, "b": 9.0}, whole_s=0.2)
    assert found.wrong == {"a": "ended after 0 s", "b": "not started: the time limit of 0 s was reached"}


def test_what_a_file_leaves_running_is_ended(tmp_path):
    left = tmp_path / "left"
    child = f"import pathlib, time; time.sleep(1); pathlib.Path({str(left)!r}).touch()"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {child!r}])"
    assert suite.ended([sys.executable, "-S", "-c", code], 9.0) == ""
    time.sleep(1.5)
    assert not left.exists()


def test_minutes_by_hand():
    kept = {
        "machine": {"threads": 2},
        "seconds": {"vq": 10.4, "norms": 20.0},
        "budget_s": {"vq": 15, "norms": 30},
        "wrong": {"vq": "failed: status 1"},
    }
    page = tables.minutes(kept)
    assert "| bench_vq.py | 10 | 15 |" in page and "| all | 30 | 45 |" in page
    assert page.endswith("\nbench_vq.py: failed: status 1.")
