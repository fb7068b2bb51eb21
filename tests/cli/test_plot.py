"""`fastdiff plot solver` writes a plot, and its error curves fall as they should."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fastdiff.cli import main
from fastdiff.cli.plot import error_curves
from fastdiff.schedule import Schedule


def test_curves_fall_with_the_order() -> None:
    schedule = Schedule.truncated_cosine(-9.0, 9.0)
    curves = error_curves(schedule, "v", ["ddim", "dpmpp_2m", "ddpm"], "log_snr", (16, 64))
    assert set(curves) == {"ddim", "dpmpp_2m"}
    slopes = {name: -np.diff(np.log([e for _, e in curve]))[0] / np.log(4) for name, curve in curves.items()}
    assert slopes["ddim"] > 0.7
    assert slopes["dpmpp_2m"] > slopes["ddim"] + 0.3


def test_writes_the_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fastdiff.cli.plot.COUNTS", (4, 8))
    out = tmp_path / "p.png"
    arguments = ["--solvers", "ddim", "--spacings", "trailing,karras", "--out", str(out)]
    assert main(["plot", "solver", *arguments, "--schedule", "linear"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"wrote {out}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "subject must be one of solver"),
        (["solvr"], "subject must be one of solver, got 'solvr'"),
        (["solver", "--out", "x.txt"], "--out must end in .png, .pdf or .svg"),
        (["solver", "--solvers", "dimm"], "solver must be one of ddpm, ddim"),
        (["solver", "--spacings", "even"], "spacing must be one of leading"),
        (["solver", "--schedule", "cosin"], "name must be one of linear"),
        (["solver", "--solvers", ","], "--solvers must be names"),
    ],
)
def test_refused(arguments: list[str], message: str, capsys) -> None:
    assert main(["plot", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_matplotlib_is_asked_for_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("fastdiff.cli.plot.error_curves", lambda *arguments: {})
    assert main(["plot", "solver", "--out", str(tmp_path / "p.png")]) == 2
    assert "pip install 'fastdiff-torch[plot]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
