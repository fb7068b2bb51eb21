"""The command line: help, versions, unknown commands, and how errors are told."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from fastdiff import cli


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", run)


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in ("sample", "train", "eval", "info"))


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["smaple"]) == 2
    told = capsys.readouterr()
    assert (
        told.err
        == "fastdiff: the command must be one of sample, train, eval, plot, doctor, bench, info, got 'smaple'\n"
    )
    assert told.out == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("sample: steps must be >= 1, got 0"), "fastdiff: sample: steps must be >= 1, got 0\n"),
        (TypeError("wrong"), "fastdiff: wrong\n"),
        (
            FileNotFoundError(2, "No such file or directory", "/x/y"),
            "fastdiff: /x/y: No such file or directory\n",
        ),
        (
            ModuleNotFoundError("No module named 'PIL'", name="PIL"),
            "fastdiff: the package 'PIL' is missing: pip install 'fastdiff-torch[cli]'\n",
        ),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    _failing(monkeypatch, error)
    assert cli.main(["sample"]) == 2
    assert capsys.readouterr().err == told


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        cli.main(["sample", "--debug"])
    monkeypatch.setenv("FASTDIFF_DEBUG", "1")
    with pytest.raises(ValueError, match="x"):
        cli.main(["sample"])
    monkeypatch.setenv("FASTDIFF_DEBUG", "0")
    assert cli.main(["sample"]) == 2


@pytest.mark.parametrize("error", [RuntimeError("bug"), ModuleNotFoundError("x", name="fastdiff.missing")])
def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    _failing(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["sample"])


def test_a_warning_of_ours_is_one_line_and_names_no_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        for place in (cli.__file__, "/elsewhere/x.py"):
            warnings.warn_explicit("look here", RuntimeWarning, place, 7)
        return 0

    monkeypatch.setattr(cli, "_run", run)
    usual = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda m, c, f, n, *_: print(
            warnings.formatwarning(m, c, f, n), end="", file=sys.stderr
        )
        assert cli.main(["train"]) == 0
    told = "fastdiff: look here\n/elsewhere/x.py:7: RuntimeWarning: look here\n"
    assert capsys.readouterr().err == told and warnings.formatwarning is usual


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _failing(monkeypatch, KeyboardInterrupt())
    assert cli.main(["sample"]) == 130
    assert capsys.readouterr().err == "fastdiff: interrupted\n"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastdiff", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_info_as_a_process() -> None:
    result = _run("info", "--json")
    assert result.returncode == 0, result.stderr
    facts: dict[str, Any] = json.loads(result.stdout)
    assert facts["ops"]["solver_step"]["torch"] == "available"


def test_an_unknown_option_is_status_2_and_no_traceback() -> None:
    result = _run("info", "--jsno")
    assert result.returncode == 2
    assert "--jsno" in result.stderr and "Traceback" not in result.stderr


def test_the_script_is_installed() -> None:
    script = Path(sys.executable).with_name("fastdiff")
    assert subprocess.run([script, "--version"], capture_output=True, check=False).returncode == 0
