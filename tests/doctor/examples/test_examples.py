"""The examples themselves: named apart, the same at every call, complete."""

from __future__ import annotations

import pytest
import torch

from fastdiff.doctor.examples import compare_of, examples_of
from fastdiff.doctor.judge import tensors
from fastdiff.ops import dispatch

dispatch.load()
#: Ops that nobody has given examples yet; `fastdiff doctor` names them as not examined.
WITHOUT: set[str] = set()


def test_every_op_has_examples():
    assert {op for op in dispatch.registered() if not examples_of(op)} == WITHOUT


@pytest.mark.parametrize("op", [op for op in dispatch.registered() if examples_of(op)])
def test_examples_are_named_apart_and_the_same_at_every_call(op):
    examples = examples_of(op)
    names = [example.name for example in examples]
    assert len(set(names)) == len(names) and any(example.timed for example in examples)
    for example in examples[:: max(1, len(examples) // 5)]:
        first, second = example.make(), example.make()
        assert first.keys() == second.keys() and set(example.gradients) <= first.keys()
        for (_, one), (_, two) in zip(tensors(first), tensors(second), strict=True):
            assert torch.equal(one, two) and one.stride() == two.stride() and one.is_cpu


def test_an_op_without_a_file_has_none():
    assert examples_of("no_such_op") == [] and compare_of("no_such_op") is None
