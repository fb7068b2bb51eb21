"""The examples themselves: named apart, the same at every call, complete."""

from __future__ import annotations

import pytest
import torch

from fastdiff.doctor.examples import compare_of, examples_of
from fastdiff.doctor.judge import tensors
from fastdiff.ops import dispatch, norm_sums

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


@pytest.mark.parametrize("op", ["group_norm_silu", "rms_norm_silu"])
def test_norms_are_examined_with_every_sum_around_them(op):
    small = [example for example in examples_of(op) if not example.timed]
    given = {name for example in small for name in example.make()}
    assert given >= set(norm_sums.NAMES)
    assert {name for example in small for name in example.gradients} >= {
        "add",
        "residual",
        "residual_add",
        "x2",
    }


def test_an_op_without_a_file_has_none():
    assert examples_of("no_such_op") == [] and compare_of("no_such_op") is None
