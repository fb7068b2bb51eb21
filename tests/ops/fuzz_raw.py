"""Random calls of the raw operators of C++ (``torch.ops.fastdiff``), past the checks of the public functions.

A call starts from one that an example of an op makes, some of whose arguments are then spoilt: other shapes, strides,
types and values, memory of another argument, memory that was taken away, sizes whose product overflows. It must end in
a `RuntimeError` (or torch's own refusal of the arguments), or leave alone all that it only reads.

    python tests/ops/fuzz_raw.py CALLS SEED

makes the calls SEED ... SEED + CALLS - 1; the number of the call at work stands in the file that FUZZ_CALL names, so
that a crash can be repeated with ``fuzz_raw.py 1 NUMBER``.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import warnings
from typing import Any

import fuzz
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastdiff.doctor.examine import Case
from fastdiff.ops import dispatch, use_backend

Arguments = dict[str, Any]
NUMBERS = (*(-(2**63), -1, 0, 1, 2, 3, 4, 5, 31, 2**20, 2**31, 2**32, 2**44, 2**62, 2**63 - 1, 2**63), None)
FLOATS = (0.0, -1.0, 1e30, 1e300, float("nan"), float("inf"), 2**63, None, "a")


class _Noted(TorchDispatchMode):
    """Notes the calls of this package's operators, with copies of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Arguments]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastdiff":
            names = [argument.name for argument in func._schema.arguments]
            given = dict(zip(names, args, strict=False)) | (kwargs or {})
            defaults = {a.name: a.default_value for a in func._schema.arguments if a.name not in given}
            self.calls.append((func, {k: _kept(v) for k, v in {**given, **defaults}.items()}))
        return func(*args, **(kwargs or {}))


def _kept(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def noted() -> list[tuple[Any, Arguments]]:
    """Calls of the raw operators that small examples of all ops make, a few of each."""
    dispatch.load()
    with _Noted() as mode, use_backend("cpp"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op in sorted(dispatch.registered()):
            for example in fuzz.small_examples(op):
                for what in ("forward", *(["gradient"] if example.gradients else [])):
                    try:
                        Case(op, example, None).called(example.make(), what)  # type: ignore[arg-type]
                    except dispatch.NoBackend:  # float64
                        continue
    return mode.calls


def others() -> list[tuple[Any, Arguments]]:
    """Calls of raw operators that no public function makes."""
    ops, last = torch.ops.fastdiff, {"memory_format": torch.channels_last}
    x, weight = torch.randn(2, 8, 5, 3).to(**last), torch.randn(2, 8)
    rows, out = {"weight": weight[0], "scale": weight, "shift": None}, torch.zeros(2, 2, 8)
    q = {name: torch.randn(2, 3, 17, 8) for name in ("out", "q", "k", "v")}
    return [
        (ops.affine_factors_cpp.default, {"out": out, **rows}),
        (
            ops.linear_attention_cpp.default,
            {**q, "scale": 0.5, "memory_k": torch.randn(2, 3, 4, 8), "memory_v": torch.randn(2, 3, 4, 8)},
        ),
        (
            ops.attention_cpp.default,
            {"out": q["out"], "log_sums": torch.zeros(2, 3, 17), **{k: q[k] for k in "qkv"}, "scale": 0.5},
        ),
        (
            ops.sinusoids_cpp.default,
            {
                "out": torch.zeros(3, 8),
                "times": torch.randn(3),
                "frequencies": torch.randn(4),
                "cosines_first": True,
            },
        ),
        (ops.conv3x3_packed_floats.default, {"tile": 4, "outs": 32, "channels": 16}),
        (ops.conv1x1_packed_floats.default, {"outs": 32, "channels": 16}),
        (
            ops.note_weights.default,
            {
                "state": torch.zeros(8, 2, dtype=torch.int64),
                "shares": torch.zeros(32, 64, dtype=torch.int64),
                "weights": [x, weight],
            },
        ),
    ]


def _alias(value: Tensor, arguments: Arguments, draw: random.Random) -> Tensor:
    """The same form in memory of another argument."""
    tensors = [t for t in arguments.values() if isinstance(t, Tensor) and t is not value and t.numel()]
    if not tensors:
        return value
    other = draw.choice(tensors)
    memory = torch.empty(0, dtype=torch.uint8).set_(other.untyped_storage())
    sizes = zip(value.shape, value.stride(), strict=True)
    reach = 1 + sum((size - 1) * stride for size, stride in sizes) if value.numel() else 0
    room = len(memory) // value.element_size()
    if reach > room:
        return value
    offset = draw.randrange(room - reach + 1) if draw.random() < 0.5 else 0
    flat = memory[: room * value.element_size()].view(value.dtype)
    return flat.as_strided(value.shape, value.stride(), offset)


def _memory(value: Tensor, draw: random.Random) -> Tensor:
    """Memory that begins in the middle of a storage, or is one element for all."""
    if draw.random() < 0.5:
        return torch.cat([value.flatten(), value.flatten()])[1 : 1 + value.numel()].view(value.shape)
    return value.flatten()[:1].expand(value.shape) if value.numel() else value


def _shrunk(value: Any, draw: random.Random) -> None:
    """Memory that is taken away behind a tensor's back: torch itself would read what is not there any more."""
    if isinstance(value, Tensor) and value.layout == torch.strided and value.is_cpu:
        storage = value.untyped_storage()
        with torch.inference_mode(value.is_inference()):
            storage.resize_(draw.choice([0, storage.nbytes() // 2, max(0, storage.nbytes() - 4)]))


def _huge(value: Tensor, draw: random.Random) -> Tensor:
    """Sizes without memory of their own; one of a product beyond 64 bits has no element."""
    shape = list(value.shape)
    if not shape:
        return value
    d = draw.randrange(len(shape))
    shape[d] = draw.choice([2**20, 2**31, 2**32, 2**40, 2**44, 2**62])
    if draw.random() < 0.6:
        return value.new_empty([0, *shape[1:]])
    return value.flatten()[:1].reshape([1] * len(shape)).expand(shape)


def _scalar(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    return draw.choice(FLOATS if isinstance(value, float) else NUMBERS)


def spoilt(arguments: Arguments, draw: random.Random) -> tuple[Arguments, list[str]]:
    """Arguments of which none to three are not what they were, and what was done."""
    arguments, done = {k: _kept(v) for k, v in arguments.items()}, []
    if draw.random() < 0.3:
        arguments, done = fuzz.resized(arguments, draw), ["resized"]
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        name = draw.choice(list(arguments))
        value = arguments[name]
        if not isinstance(value, Tensor):
            arguments[name] = _scalar(value, draw) if not isinstance(value, list) else value
            done.append(f"{name} = {arguments[name]}"[:40])
            continue
        kind = draw.randrange(5)
        try:
            if kind == 0:
                arguments[name] = _alias(value, arguments, draw)
            elif kind == 1:
                arguments[name] = _memory(value, draw)
            elif kind == 2:
                arguments[name] = _huge(value, draw)
            else:
                made = draw.choice(fuzz.SPOILT)(value, draw) if abs(value.numel()) < 2**20 else value
                arguments[name] = made if isinstance(made, Tensor) else None
        except (RuntimeError, IndexError, TypeError):  # torch does not make such a tensor
            kind = -1
        done.append(f"{name} by {kind}")
    if draw.random() < 0.1:
        name = draw.choice(list(arguments))
        negated = [v for v in arguments.values() if isinstance(v, Tensor) and v.is_neg()]
        if not negated:  # torch itself would read those
            _shrunk(arguments[name], draw)
            done.append(f"{name} shrunk")
    return arguments, done


def _read(func: Any, arguments: Arguments) -> dict[str, Tensor]:
    """What a call only reads and what can be compared: all of it is in memory."""
    written = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    found = {k: v for k, v in arguments.items() if isinstance(v, Tensor) and k not in written}
    return {k: v for k, v in found.items() if _small(v)}


def _small(t: Tensor) -> bool:
    if t.is_meta or t.layout != torch.strided or t.is_neg() or t.numel() > 2**20 or not t.numel():
        return False
    reach = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    return (t.storage_offset() + reach) * t.element_size() <= t.untyped_storage().nbytes()


def _allowed_in_place(func: Any, arguments: Arguments, name: str) -> bool:
    """`out` may be x, x0 or the residual itself."""
    out, value = arguments.get("out"), arguments[name]
    here = isinstance(out, Tensor) and out.data_ptr() == value.data_ptr()
    return here and name in ("x", "x0", "residual")


def outcome(func: Any, arguments: Arguments) -> str:
    """ "refused" or "accepted", else an `AssertionError`."""
    read = _read(func, arguments)
    before = {name: value.clone() for name, value in read.items()}
    try:
        func(**arguments)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, MemoryError):
        told = "refused"
    else:
        told = "accepted"
    for name, value in read.items():
        same = torch.equal(
            *(
                t.clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)
                for t in (value, before[name])
            )
        )
        assert same or _allowed_in_place(func, arguments, name), f"{name} was written, the call {told}"
    return told


def call(calls: list[tuple[Any, Arguments]], number: int) -> tuple[str, str]:
    """(outcome, what was done) of one call, which its number determines."""
    draw = random.Random(f"raw {number}")
    torch.manual_seed(number)
    names = sorted({str(func) for func, _ in calls})
    name = draw.choice(names)
    func, arguments = draw.choice([one for one in calls if str(one[0]) == name])
    arguments, done = spoilt(arguments, draw)
    what = f"{func}: {', '.join(done) or 'as it is'}"
    try:
        return outcome(func, arguments), what
    except AssertionError as error:
        told = "\n".join(f"    {k}: {fuzz._told(v)}" for k, v in arguments.items())
        raise AssertionError(f"call {number}, {what}: {error}\n{told}") from error


def main(count: int, first: int) -> int:
    place = os.open(os.environ.get("FUZZ_CALL", os.devnull), os.O_WRONLY | os.O_CREAT, 0o600)
    calls, counts, wrong = [*noted(), *others()], collections.Counter[str](), 0
    for number in range(first, first + count):
        os.pwrite(place, f"{number:<20}\n".encode(), 0)
        try:
            counts[call(calls, number)[0]] += 1
        except AssertionError as error:
            wrong += 1
            if wrong <= 20:
                print(error, flush=True)
    operators = len({str(func) for func, _ in calls})
    print(f"raw: {operators} operators, {count} calls, {dict(counts)}, {wrong} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
