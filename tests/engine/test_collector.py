"""The garbage collector waits while a graph is planned, and is then as it was."""

import gc

import pytest
import torch
from torch import nn

from fastdiff.engine import capture, program
from fastdiff.engine.collector import held_back


@pytest.mark.parametrize("running", [True, False])
def test_it_is_left_as_it_was_found(running):
    before = gc.isenabled()
    (gc.enable if running else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError), held_back():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() is running
    finally:
        (gc.enable if before else gc.disable)()


def test_it_waits_while_a_graph_is_planned(monkeypatch):
    trace, seen = capture.trace, []
    monkeypatch.setattr(program.capture, "trace", lambda *args: seen.append(gc.isenabled()) or trace(*args))
    net = nn.Conv2d(2, 3, 3).eval()
    with torch.no_grad():
        torch.compile(net, backend="fastdiff")(torch.zeros(1, 2, 8, 8))
    assert seen == [False]
    assert gc.isenabled()
