"""Every op, every argument: what does not fit (dtype, device, shape, object) is refused in words; strides are right."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdiff import ops
from fastdiff.doctor.examples import examples_of
from fastdiff.ops import dispatch, extension, use_backend

_SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
assert _SPEC is not None and _SPEC.loader is not None
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)

dispatch.load()
needs_cpp = pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
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
def test_an_array_of_one_is_no_number(op):
    """What operator.index and C++ would take is the same for every backend."""
    for example in examples_of(op):
        numbers = [name for name, value in example.make().items() if type(value) in (int, float)]
        for name in [] if example.timed else numbers:
            made = example.make()
            told = fuzz.outcome(op, example, made | {name: np.array(made[name])})
            assert told == "refused", f"{example.name}: {name}: {told}"


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


@pytest.mark.parametrize("backend", [pytest.param("cpp", marks=needs_cpp), "torch", None])
def test_a_number_beyond_64_bits_is_refused_by_every_backend(backend):
    x, refused = torch.ones(1, 2, 2, 2), pytest.raises(ValueError, match="eps must be a float or fit 64 bits")
    with use_backend(backend) if backend else nullcontext():
        with refused:
            ops.group_norm_silu(x, 1, eps=2**63)
        with refused:
            ops.rms_norm_silu(x, eps=2**63)


LAST = {"memory_format": torch.channels_last}
MEMORY = torch.zeros(256)
INTEGERS = MEMORY.view(torch.int64)
RAW = {
    "attention": ("attention_cpp", (MEMORY[:8].view(1, 4, 2), MEMORY[6:10], *[torch.ones(1, 4, 2)] * 3, 1.0)),
    "attention, one row for all": (
        "attention_cpp",
        (MEMORY[:2].expand(4, 2), None, *[torch.ones(4, 2)] * 3, 1.0),
    ),
    "normal": ("normal_cpp", (MEMORY[:8].view(2, 4), INTEGERS[2:4], None, 0, 0)),
    "normal's stream": ("normal_cpp", (torch.zeros(2, 4), torch.arange(2), None, 0, 2**32)),
    "add_noise": (
        "add_noise_cpp",
        (
            MEMORY[:8].view(2, 4),
            None,
            torch.ones(2, 4),
            MEMORY[:2],
            torch.ones(2),
            torch.arange(2),
            None,
            0,
            None,
            0.0,
        ),
    ),
    "vq_code_sums": ("vq_code_sums_cpp", (torch.zeros(3, 2), INTEGERS[:3], torch.ones(4, 2), INTEGERS[2:6])),
    "pixel_norms": (
        "pixel_norms_cpp",
        (MEMORY[:4].view(1, 2, 2), MEMORY[:8].view(1, 2, 2, 2).movedim(-1, 1), None, 0.0),
    ),
    "norm_factors": ("affine_factors_cpp", (MEMORY[:8].view(1, 2, 4), MEMORY[4:8], None, None)),
    "group_norm_silu": (
        "group_norm_silu_cpp",
        (MEMORY[:8].view(1, 2, 4), MEMORY[:3].view(1, 1, 3), torch.ones(1, 2, 4), *[None] * 4, 1, 0.1, True),
    ),
    "sizes": ("conv3x3_packed_floats", (1, 2**44, 2**20)),
    "no tile": ("conv3x3_packed_floats", (3, 1, 1)),
}


@needs_cpp
@pytest.mark.parametrize("call", RAW.values(), ids=RAW)
def test_raw_calls_of_what_a_kernel_cannot_take_are_refused(call):
    """Memory that is read and written, one element for several results, numbers that do not fit."""
    name, arguments = call
    with pytest.raises(RuntimeError, match="must"):
        getattr(torch.ops.fastdiff, name)(*arguments)


@needs_cpp
@pytest.mark.parametrize("bytes_left", [0, 4])
def test_a_tensor_whose_memory_was_taken_away_is_refused(bytes_left):
    x, out = torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    x.untyped_storage().resize_(bytes_left)
    with pytest.raises(RuntimeError, match="must"):
        torch.ops.fastdiff.rms_norm_silu_cpp(out, x, None, None, None, 1e-6, True)
    with pytest.raises(RuntimeError, match="must"):
        torch.ops.fastdiff.rms_norm_silu_cpp(x, out, None, None, None, 1e-6, True)


@needs_cpp
@pytest.mark.parametrize("size", [(1, 4, 0, 5), (1, 4, 5, 0), (0, 4, 2**40, 2**3)])
def test_a_raw_convolution_without_pixels_has_no_result(size):
    x, packed = torch.empty(size).to(**LAST), torch.zeros(torch.ops.fastdiff.conv3x3_packed_floats(1, 4, 4))
    given = (packed, 1, None, None, None, False, False, None, None, 1.0)
    torch.ops.fastdiff.conv3x3_cpp(torch.empty(size).to(**LAST), None, x, None, *given)
