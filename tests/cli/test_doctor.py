"""`fastdiff doctor`: what it prints, writes and ends with."""

from __future__ import annotations

import json

import pytest

from fastdiff import cli
from fastdiff.cli import doctor
from fastdiff.doctor import Diagnosis, diagnosis
from fastdiff.doctor.examine import Finding
from fastdiff.ops import winners


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    winners.forget()


def test_one_op_on_the_cpu(tmp_path, capsys):
    file = tmp_path / "report.json"
    assert cli.main(["doctor", "--device", "cpu", "--ops", "vq_code_sums", "--json", str(file)]) == 0
    shown, told = capsys.readouterr().out, json.loads(file.read_text())
    assert "all right" in shown and "vq_code_sums" in shown
    assert told["status"] == 0 and {one["op"] for one in told["findings"]} == {"vq_code_sums"}
    assert not winners.file().exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ops", "vq"], "doctor: op must be one of"),
        (["--device", "tpu"], "doctor: device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["--seconds", "0"], "doctor: --seconds must be above 0"),
        (["--nothing"], "--nothing"),
    ],
)
def test_wrong_usage_is_status_2(arguments, told, capsys):
    assert cli.main(["doctor", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_wrong_kernel_is_status_1(monkeypatch, capsys):
    wrong = Diagnosis({"name": "Stub"}, [Finding("toy", "triton", "usual", "forward", "wrong", "error 1")])
    monkeypatch.setattr("fastdiff.doctor.diagnose", lambda *_, **__: wrong)
    assert doctor.run(doctor.DoctorOptions(device="cpu")) == 1
    assert "NOT RIGHT: toy on triton" in capsys.readouterr().out


def test_a_worker_that_does_not_start_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "command", lambda device: ["/bin/false"])
    assert cli.main(["doctor", "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("fastdiff: doctor: the examining process does not start")
