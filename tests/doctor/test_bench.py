"""`fastdiff bench`: ratios by hand, rivals that do the same, and what is said of a wrong result."""

from __future__ import annotations

import json

import pytest
import torch

from fastdiff import cli, ops
from fastdiff.doctor import bench, devices, rivals
from fastdiff.doctor.examine import Case
from fastdiff.doctor.examples import examples_of
from fastdiff.doctor.judge import tensors
from fastdiff.ops import dispatch

dispatch.load()
RANDOM = {"add_noise", "normal"}


def float32(op):
    return [one for one in examples_of(op) if one.timed and "float16" not in one.name]


@pytest.mark.parametrize("op", sorted(set(rivals.RIVALS) - RANDOM))
def test_a_rival_does_what_the_op_does(op):
    example = next(one for one in float32(op) if "DDPM" not in one.name)
    ours = dict(tensors(getattr(ops, op)(**example.make())))
    theirs = dict(tensors(rivals.call(op, example.make())()))
    for (name, one), two in zip(ours.items(), theirs.values(), strict=False):
        if one.is_floating_point() and name != "quantised":  # of two codes equally near either will do
            torch.testing.assert_close(one, two.reshape(one.shape), rtol=2e-3, atol=2e-3)


def test_every_rival_is_of_an_op_that_is_there_and_has_examples():
    assert set(rivals.RIVALS) <= set(dispatch.registered())
    assert all(float32(op) for op in rivals.RIVALS)


def test_ratio_is_the_median_over_rounds():
    times = {"ours": iter([0.0, 1.0, 2.0, 4.0, 1.0, 1.0]), "rival": iter([0.0, 3.0, 8.0, 8.0, 2.0, 3.0])}

    def call(name):
        return lambda: name

    row = bench.duel("x", call("ours"), call("rival"), lambda one: next(times[one()]) + 1e-9, rounds=6)
    assert row.ratio == pytest.approx(2.5, abs=0.6) and row.p10 <= row.ratio <= row.p90


def test_a_wrong_result_gets_no_time(monkeypatch):
    example = next(one for one in examples_of("vq_code_sums") if "37x5x3 float32" in one.name)
    right = ops.vq_code_sums

    def wrong(**arguments):
        good = right(**arguments)
        return good if dispatch.forced_backend() else good._replace(sums=good.sums + 1)

    monkeypatch.setattr(ops, "vq_code_sums", wrong)
    row = bench._op_row(Case("vq_code_sums", example, devices.Cpu()))
    assert row.note == "not timed, because it is wrong: sums" and not row.ratio
    assert "because it is wrong" in bench.as_text([row], {"name": "Stub"})


def test_the_command(tmp_path, capsys):
    file = tmp_path / "bench.json"
    command = ["bench", "--device", "cpu", "--ops", "vq_code_sums", "--no-sampling", "--json", str(file)]
    assert cli.main(command) == 0
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 2 and all(row["ratio"] > 0 for row in rows)
    assert "| vq_code_sums 16384x512x64 float32" in capsys.readouterr().out


def test_an_op_without_a_rival_is_refused(capsys):
    assert cli.main(["bench", "--ops", "pixel_norms"]) == 2
    assert "bench: op must be one of add_noise, attention" in capsys.readouterr().err
