"""Every op on its examples, on the CPU, in this process: what the doctor would say here."""

from __future__ import annotations

import pytest

from fastdiff.doctor import devices
from fastdiff.doctor.examine import FAILURES, Case, examine
from fastdiff.doctor.examples import examples_of
from fastdiff.ops import dispatch

dispatch.load()
EXAMINED = [op for op in dispatch.registered() if examples_of(op)]


@pytest.mark.parametrize("op", EXAMINED)
def test_every_backend_is_right_on_the_small_examples(op):
    begun = []
    for example in examples_of(op):
        if example.timed:
            continue
        for found in examine(Case(op, example, devices.Cpu()), lambda *what: begun.append(what)):
            assert found.state not in FAILURES, found
            assert found.state != "right" or found.error is not None
    assert {("torch", "reference"), ("torch", "forward")} <= set(begun)


def test_a_backend_may_be_left_out():
    example = examples_of("normal")[0]
    found = list(examine(Case("normal", example, devices.Cpu()), lambda *_: None, frozenset({"cpp"})))
    assert "torch" in {one.backend for one in found} and "cpp" not in {one.backend for one in found}


@pytest.mark.parametrize(
    ("op", "kept_under"),
    [
        ("vq_nearest", "torch.float32 64 wide, 1024 codes"),
        # Nothing that the doctor finds replaces our sums (they are the same at every run), so they have no classes.
        ("vq_code_sums", "16384x512x64 float32"),
    ],
)
def test_timed_examples_get_a_time_each(op, kept_under):
    example = next(one for one in examples_of(op) if one.timed)
    found = [f for f in examine(Case(op, example, devices.Cpu()), lambda *_: None) if f.state == "right"]
    assert found
    for one in found:
        assert one.ms > 0 and one.spread[0] <= one.ms <= one.spread[1]
        assert one.shape_class == kept_under
