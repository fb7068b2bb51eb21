"""The doctor on a device that pretends to be a GPU and an op whose kernels misbehave in every way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from fastdiff.doctor import diagnosis, report, supervisor
from fastdiff.doctor.diagnosis import diagnose
from fastdiff.ops import dispatch, winners

from . import stub

WORKER = [sys.executable, str(Path(stub.__file__))]


@pytest.fixture(autouse=True)
def _only_the_toy(monkeypatch, tmp_path):
    monkeypatch.setattr(dispatch, "load", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FASTDIFF_WINNERS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(stub.__file__).parents[2]))
    with stub.registered():
        yield
    winners.forget()


def examined(**options):
    return diagnose("stub", worker=[*WORKER, "works"], patience_s=5.0, loop=False, **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One examination for all tests that look at what it found."""
    with pytest.MonkeyPatch.context() as patch, stub.registered():
        patch.setattr(dispatch, "load", lambda: None)
        patch.setenv("PYTHONPATH", str(Path(stub.__file__).parents[2]))
        cache, told = tmp_path_factory.mktemp("cache") / "fastdiff" / "winners.json", []
        result = examined(cache=cache, progress=lambda *what: told.append(what))
        assert told == [("toy", number, len(stub.EXAMPLES)) for number in range(len(stub.EXAMPLES))]
        return result


def states(found, backend):
    return {one.example: one.state for one in found.findings if one.backend == backend}


def test_every_way_to_misbehave_is_told_and_ends_nothing(found, tmp_path):
    assert states(found, "triton") == {
        **{"usual": "right", "wrong": "wrong", "error": "error", "crash": "crashed", "hang": "timeout"},
        "refused": "refused",
    }
    assert set(states(found, "cuda").values()) == {"absent"}
    assert states(found, "cpp") == states(found, "torch") == dict.fromkeys(stub.EXAMPLES, "right")
    notes = {one.example: one.note for one in found.findings if one.backend == "triton"}
    assert "signal SIGSEGV" in notes["crash"] and "in forward" in notes["crash"]
    assert "silent for 5 s" in notes["hang"]
    assert notes["error"] == "RuntimeError: no such instruction"
    assert notes["refused"] == "it is refused" and notes["wrong"].startswith("result: error 0.5")
    assert {one.example for one in found.failures()} == {"wrong", "error", "crash", "hang"}
    assert found.unexamined == {"bare": "it has no examples (fastdiff/doctor/examples/bare.py)"}
    assert json.loads(json.dumps(found.to_dict()))["status"] == 1


def test_a_backend_that_failed_anywhere_wins_nowhere(found):
    """triton is the fastest where it is right, and yet not to be trusted."""
    assert {one.backend: one.ms for one in found.findings if one.ms} == {
        "triton": 2.0,
        "cpp": 4.0,
        "torch": 8.0,
    }
    assert found.winners() == {"toy": {"torch.float32 usual": "cpp"}}


def test_winners_are_stored_per_device_and_read_back(found):
    assert found.stored.endswith("winners.json")
    assert winners.read(Path(found.stored)) == ({"Stub 9000": {"toy": {"torch.float32 usual": "cpp"}}}, "")


def test_the_report_names_everything(found):
    text = report.as_text(found)
    assert "| toy | triton  | 1 right, 1 wrong, 1 error, 1 crashed, 1 timeout, 1 refused |" in text
    assert "cuda is not available for toy: nvcc was not found" in text
    assert "| toy | usual   | triton 2 (2 to 2); cpp 4 (4 to 4); torch 8 (8 to 8) | cpp     |" in text
    assert "- toy on triton, hang, forward: timeout (silent for 5 s, in forward)" in text
    assert "not examined: bare: it has no examples" in text and "device: name Stub 9000" in text
    assert text.endswith("s: NOT RIGHT: toy on triton") and "3 kernels examined in" in text


def test_without_a_cache_folder_it_says_so(tmp_path):
    (tmp_path / "fastdiff").write_text("a file where the folder should be")
    told = examined(budget_s=0.0).stored
    assert told.startswith("not stored: ") and "fastdiff" in told


def test_time_that_runs_out_is_told():
    found = examined(budget_s=0.0)
    assert set(found.unexamined) == {"bare", *(f"toy {name}" for name in stub.EXAMPLES)}
    assert found.findings == [] and "the time limit of 0 s was reached" in report.as_text(found)


def test_what_was_not_examined_is_told_by_op():
    names = ("sample graph", "bare", *(f"step {n}" for n in range(3)))
    told = {**dict.fromkeys(names, "time was over"), "other": "no examples"}
    lines = report._unexamined(told)
    assert lines == [
        "not examined: sample graph, bare, step (3 examples): time was over",
        "not examined: other: no examples",
    ]


def test_some_ops_alone_are_not_stored(tmp_path):
    found = examined(ops=["bare"])
    assert found.stored.startswith("not stored") and not winners.file().exists()
    assert list(found.unexamined) == ["bare"]


def test_an_unknown_op_names_the_known():
    with pytest.raises(ValueError, match="doctor: op must be one of bare, toy, got 'tpy'"):
        examined(ops=["tpy"])


@pytest.mark.parametrize(
    ("how", "told"), [("cannot start", "exit status 1: no driver"), ("is silent", "SIGKILL")]
)
def test_a_worker_that_does_not_start_is_an_error_in_words(how, told, monkeypatch):
    monkeypatch.setattr(supervisor, "START_S", 100.0 if how == "cannot start" else 1.0)
    with pytest.raises(supervisor.WorkerLost, match=f"does not start .*{told}"):
        diagnose("stub", worker=[*WORKER, how])


def test_the_first_of_about_equal_backends_wins():
    assert diagnosis.fastest({"triton": [1.02], "torch": [1.0]}) == "triton"
    assert diagnosis.fastest({"triton": [1.1], "torch": [1.0]}) == "torch"
    assert diagnosis.fastest({"triton": [1.0, 4.0], "torch": [3.0, 3.0]}) == "triton"


def test_a_backend_that_stands_back_is_chosen_once_it_has_won():
    """What the doctor stored is what dispatch goes by, for the classes and the device it was found on."""
    x = torch.ones(2)

    def chosen(what):
        seen = []

        class Noted:
            def __init__(self, op, backend, inputs):
                seen.append(backend.name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                return None

        with dispatch.observing(Noted):
            stub._toy(x, what)
        return seen[0]

    assert chosen("usual") == "cpp"
    winners.store(winners.device_name("cpu"), {"toy": {"torch.float32 usual": "triton"}})
    assert chosen("usual") == "triton" and chosen("wrong") == "cpp"
    with dispatch.use_backend("triton"):
        assert chosen("wrong") == "triton"
    winners.store("another device", {"toy": {"torch.float32 wrong": "triton"}})
    assert chosen("usual") == "triton" and chosen("wrong") == "cpp"
