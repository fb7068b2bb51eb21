"""Every op, every argument: what does not fit (dtype, device, shape, object) is refused in words; strides are right."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from fastdiff.doctor.examples import examples_of
from fastdiff.ops import dispatch

_SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
assert _SPEC is not None and _SPEC.loader is not None
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)

dispatch.load()
WRONG = {
    "complex": lambda t: t.to(torch.complex64),
    "another device": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "nested": lambda t: torch.nested.nested_tensor([t]),
    "no tensor": lambda t: "x",
    "one dimension more": lambda t: t.reshape(*t.shape, *[1] * 6),
}
RIGHT = {
    "every second element": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "transposed memory": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
}


def given(op):
    """The smallest example of an op that has elements, the names of its tensors, and of its flags."""
    for example in examples_of(op):
        arguments = example.make()
        tensors = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
        if not example.timed and all(arguments[name].numel() > 1 for name in tensors[:1]):
            flags = [name for name, value in arguments.items() if isinstance(value, bool)]
            return example, tensors, flags
    raise AssertionError(f"{op} has no example")


OPS = sorted(op for op in dispatch.registered() if examples_of(op))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", OPS)
def test_what_does_not_fit_is_refused(op):
    example, tensors, _ = given(op)
    for name in tensors:
        for what, spoil in WRONG.items():
            arguments = example.make()
            if len(tensors) == 1 and what == "another device":
                continue  # all inputs are there: nothing is wrong
            arguments[name] = spoil(arguments[name])
            told = fuzz.outcome(op, example, arguments)
            free = (
                what == "one dimension more" and name == tensors[0]
            )  # some ops take any number of dimensions
            assert told == "refused" or free, f"{op}: {name}, {what}: {told}"


@pytest.mark.parametrize("op", OPS)
def test_flags_are_true_or_false(op):
    example, _, flags = given(op)
    for name in flags:
        for value in ("a", [1, 2], torch.float32, None):
            told = fuzz.outcome(op, example, example.make() | {name: value})
            assert told == "refused", f"{op}: {name} = {value!r}: {told}"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_odd_strides_are_right_or_refused(op, dtype):
    """Of half precision, too, where the op takes it."""
    example, tensors, _ = given(op)
    for name in tensors:
        for spoil in RIGHT.values():
            arguments = example.make()
            value = arguments[name]
            if value.dim() == 0:
                continue
            value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
            arguments[name] = spoil(value)
            assert fuzz.outcome(op, example, arguments) in ("right", "refused")
