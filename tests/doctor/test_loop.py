"""The doctor's loop: every way is tried, held against the CPU's images, told and never a winner; stubs misbehave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastdiff.doctor import loop, report
from fastdiff.doctor.devices import Cpu
from fastdiff.doctor.diagnosis import Diagnosis, diagnose, loop_requests
from fastdiff.doctor.examine import Finding
from fastdiff.doctor.supervisor import Supervisor

from . import stub

WORKER = [sys.executable, str(Path(stub.__file__))]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(loop, "STEPS", 3)
    monkeypatch.setattr(loop, "IMAGES", 2)
    monkeypatch.setattr(loop, "_RUNS", 1)
    monkeypatch.setattr(loop, "_CALLS", 1)
    loop.of_the_cpu.cache_clear()
    yield
    loop.of_the_cpu.cache_clear()


def told(way, device=None):
    begun = []
    (found,) = loop.examine_loop(device or Cpu(), way, lambda *what: begun.append(what))
    return found, begun


def test_eager_and_graph_on_the_cpu(small):
    found, begun = told("eager")
    assert found.state == "right" and found.error == 0.0 and found.ms > 0
    assert "images/s" in found.note and "network" in found.note
    assert begun == [("torch", "reference"), ("eager", "forward")]
    found, _ = told("graph")
    assert found.state == "absent" and "CUDA" in found.note


@pytest.mark.slow
def test_the_engine_on_the_cpu(small):
    found, _ = told("fastdiff")
    assert found.state == "right" and 0 < found.error < 1


class Brighter(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t, **more):
        return self.net(x, t, **more) + 0.1


def _breaks(net):
    raise RuntimeError("no compiler\nand more")


def test_other_images_and_an_error_are_told(small, monkeypatch):
    monkeypatch.setitem(loop.WAYS, "eager", (Brighter, False))
    found, _ = told("eager")
    assert found.state == "wrong" and found.error > 1 and found.ms is None and "images differ" in found.note
    monkeypatch.setitem(loop.WAYS, "eager", (_breaks, False))
    found, _ = told("eager")
    assert (found.state, found.note) == ("error", "RuntimeError: no compiler")


def test_a_device_that_claims_to_be_a_gpu_records(small, monkeypatch):
    monkeypatch.setattr(loop, "drawn", lambda net, device, record: torch.full((2, 1, 2, 2), 0.25))
    monkeypatch.setattr(stub, "_taken", [5.0])
    found, _ = told("graph", stub.StubDevice())
    assert found.state == "right" and "network" not in found.note


def test_the_supervisor_gets_the_loop_from_a_worker():
    """A way that crashes ends neither the others nor the examination."""
    supervisor = Supervisor([*WORKER, "works"], 60.0)
    requests = loop_requests()
    assert [one.example for one in requests] == list(loop.WAYS) and requests[-1].example == "inductor"
    try:
        found = [finding for request in requests[:3] for finding in supervisor.findings(request)]
    finally:
        supervisor.close()
    assert [(f.backend, f.state) for f in found] == [
        ("eager", "right"), ("fastdiff", "crashed"), ("graph", "wrong"),
    ]  # fmt: skip


def test_the_table_and_the_winners():
    found = Diagnosis({"name": "Stub"})
    found.findings = [
        Finding(loop.LOOP, "eager", "x", "forward", "right", "8 images/s", 0.0, 2000.0, (1.0, 2.0)),
        Finding(loop.LOOP, "graph", "x", "forward", "wrong", "images differ", 9.0),
    ]
    text = report.as_text(found)
    assert "| eager | right  | 2000 |" in text and "| graph | wrong  |      | 9" in text
    assert found.winners() == {} and "NOT RIGHT: sample on graph" in text
    assert json.loads(json.dumps(found.to_dict()))["status"] == 1


def test_the_loop_is_drawn_before_the_ops_and_by_inductor_after_them(monkeypatch):
    asked = []
    monkeypatch.setattr(Supervisor, "start", lambda self: {"name": "Stub"})
    monkeypatch.setattr(Supervisor, "findings", lambda self, request: (asked.append(request.op), iter(()))[1])
    with stub.registered():
        diagnose("stub", store=False)
        assert asked == ["sample"] * 4 + ["toy"] * len(stub.EXAMPLES) + ["sample"]
        asked.clear()
        short = diagnose("stub", store=False, budget_s=60.0)
        assert asked == ["sample"] * 4 + ["toy"] * len(stub.EXAMPLES)
        assert short.unexamined["sample inductor"] == "the time limit of 60 s was reached"
        asked.clear()
        diagnose("stub", ops=["toy"], store=False)
        assert set(asked) == {"toy"}
