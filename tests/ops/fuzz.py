"""Random calls of one op: each must end in a right number or in an error in words.

A call starts from one of the op's examples (`fastdiff.doctor.examples`), some of whose arguments are then spoilt:
other shapes, strides, types, devices, values, kinds of objects. What the op accepts is compared with plain torch and
with float64; what it refuses must be a `ValueError` or `TypeError` of the form ``<op>: <argument> must ..., got ...``.

    python tests/ops/fuzz.py OP CALLS SEED

runs the small examples of an op (or of `every` one) as they are, then calls SEED ... SEED + CALLS - 1, and ends with
status 1 when one of them goes wrong; the number of the call at work
stands in the file that FUZZ_CALL names, so that a crash can be repeated with ``fuzz.py OP 1 NUMBER``.
"""

from __future__ import annotations

import collections
import math
import os
import random
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastdiff.doctor import judge
from fastdiff.doctor.devices import copied
from fastdiff.doctor.examine import Case
from fastdiff.doctor.examples import Example, compare_of, examples_of
from fastdiff.ops import dispatch, use_backend

#: A refusal in words. The place may be a part of the op, as in conv3x3.pack.
FORM = r"{op}(\.\w+)?: .* must .*, got .*"
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64),
    torch.int32,
    torch.bool,
)
ODD_DTYPES = (torch.complex64, torch.uint8, torch.float8_e4m3fn)
SCALARS = (*(-1, 0, 1, 2, 7, 2**31, 2**32, 2**40, 2**63, True, 1.5, 0.0, 1e-30, 1e30, -1.0), None, "a")
SCALARS += (float("nan"), float("inf"), torch.tensor(1), [1, 2], torch.float32)
#: A resized tensor has at most so many elements.
MOST = 2**17
Draw = random.Random


def _values(t: Tensor, draw: Draw) -> Tensor:
    if not t.is_floating_point() or not t.numel():
        return torch.full_like(t, draw.choice([0, -1, 1, 2**31, -(2**62)])) if t.dtype == torch.int64 else t
    t = t.clone()
    value = draw.choice([float("nan"), float("inf"), float("-inf"), 0.0, 1.0, 1e4, 1e30, 1e-40, -3e38])
    flat = t.view(-1) if t.is_contiguous() else t.reshape(-1)
    flat[:: draw.choice([1, 2, 5, 1000])] = value
    return flat.reshape(t.shape)


def _strides(t: Tensor, draw: Draw) -> Tensor:
    kind = draw.randrange(7)
    if kind == 0 and t.dim() > 1:
        i, j = draw.sample(range(t.dim()), 2)
        return t.transpose(i, j).contiguous().transpose(i, j)
    if kind == 1 and t.dim() in (4, 5):
        return t.contiguous(memory_format=torch.channels_last if t.dim() == 4 else torch.channels_last_3d)
    if kind == 2 and t.dim():
        d = draw.randrange(t.dim())
        return torch.cat([t, t, t], dim=d).narrow(d, draw.randrange(t.shape[d] + 1), t.shape[d])
    if kind == 3 and t.dim():
        d = draw.randrange(t.dim())
        return t.repeat_interleave(2, dim=d)[(slice(None),) * d + (slice(None, None, 2),)]
    if kind == 4 and t.dim() and 0 not in t.shape:
        d = draw.randrange(t.dim())
        return t.narrow(d, 0, 1).expand_as(t)
    if kind == 5 and t.dim() and t.numel():
        strides = [draw.randrange(3) for _ in range(t.dim())]
        room = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, strides, strict=True))
        return t.reshape(-1).repeat(1 + room // t.numel())[:room].as_strided(t.shape, strides)
    return t.contiguous()


def _ranks(t: Tensor, draw: Draw) -> Tensor:
    made: list[Callable[[], Tensor]] = [
        *(lambda: t.unsqueeze(0), lambda: t.unsqueeze(-1), lambda: t.flatten(), lambda: t.squeeze()),
        *(lambda: t[0], lambda: t[..., 0], lambda: t.sum(), lambda: t.reshape(*t.shape, *[1] * 6)),
    ]
    return draw.choice(made)()


def _sizes(t: Tensor, draw: Draw) -> Tensor:
    if not t.dim():
        return t
    d = draw.randrange(t.dim())
    size = draw.choice([0, 1, t.shape[d] - 1, t.shape[d] + 1])
    return torch.cat([t, t], dim=d).narrow(d, 0, max(0, min(size, 2 * t.shape[d])))


def _objects(t: Tensor, draw: Draw) -> Any:
    kind = draw.randrange(9)
    if kind == 0 and t.is_floating_point():
        return torch.nn.Parameter(t.clone())
    if kind == 1 and t.dtype in (torch.float32, torch.float64):
        return torch.complex(t, -t).conj().imag  # a tensor whose sign torch keeps as a bit
    if kind == 2:
        return t.to_sparse()
    if kind == 3:
        return t.to("meta")
    if kind == 4 and t.is_floating_point():
        return t.clone().requires_grad_()
    with torch.inference_mode():
        inference = t.clone()
    return draw.choice(
        [None, 3, "x", t.tolist(), t.numpy() if t.dtype != torch.bfloat16 else None, inference]
    )


def _dtypes(t: Tensor, draw: Draw) -> Tensor:
    return t.to(draw.choice(DTYPES if draw.random() < 0.8 else ODD_DTYPES))


SPOILT = (_values, _strides, _strides, _strides, _dtypes, _ranks, _sizes, _objects)


def resized(arguments: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """The same call with another size wherever a size stands: of one batch, channel or pixel more or fewer."""
    sizes = sorted({size for _, t in judge.tensors(arguments) for size in t.shape})
    if not sizes:
        return arguments
    old, new = draw.choice(sizes), draw.choice([0, 1, 2, 3, 5, 8, 12, 16, 17, 24, 33, 65])
    largest = max(
        math.prod(new if size == old else size for size in t.shape) for _, t in judge.tensors(arguments)
    )
    new = new if largest <= MOST else 2  # a call is to be one of ten thousand

    def change(value: Any) -> Any:
        if isinstance(value, tuple):
            parts = [change(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if not isinstance(value, Tensor):
            return value
        for d, size in enumerate(value.shape):
            if size == old:
                spare = value if size else value.new_ones([*value.shape[:d], 1, *value.shape[d + 1 :]])
                index = torch.arange(new) % max(1, size)
                value = spare.index_select(d, index)
        return value

    return {name: change(value) for name, value in arguments.items()}


def spoilt(arguments: dict[str, Any], draw: Draw) -> tuple[dict[str, Any], list[str]]:
    """Arguments of which none to three are not what they were, and what was done."""
    arguments, done = dict(arguments), []
    if draw.random() < 0.4:
        arguments, done = resized(arguments, draw), ["resized"]
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        name = draw.choice(list(arguments))
        value = arguments[name]
        how = draw.choice(SPOILT)
        done.append(f"{name} {how.__name__ if isinstance(value, Tensor) else 'scalar'}")
        if isinstance(value, Tensor):
            try:
                arguments[name] = how(value, draw)
            except (RuntimeError, IndexError, TypeError):  # torch does not make such a tensor
                done[-1] += " (not made)"
        elif not isinstance(value, tuple) or draw.random() < 0.2:
            arguments[name] = draw.choice(SCALARS)
    tensors = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    if len(tensors) > 1 and draw.random() < 0.05:
        one, other = draw.sample(tensors, 2)
        arguments[one] = arguments[other]
        done.append(f"{one} is {other}")
    return arguments, done


class Wrong(AssertionError):
    """A call that ended neither right nor in words."""


def outcome(op: str, example: Example, arguments: dict[str, Any]) -> str:
    """ "right", "refused", "too large" for memory, "not compared" (meta tensors), else `Wrong`."""
    case = Case(op, example, None)  # type: ignore[arg-type]
    given = _copies(arguments)
    try:
        ours = case.called(given, "forward")
    except (ValueError, TypeError) as error:
        if isinstance(error, dispatch.NoBackend) or re.match(FORM.format(op=op), str(error), re.DOTALL):
            return "refused"
        raise Wrong(f"refused without the form of an error: {type(error).__name__}: {error}") from error
    except Exception as error:
        if "allocate memory" in str(error):
            return "too large"
        if "Inference tensors cannot be saved" in str(error):  # autograd's own refusal
            return "refused"
        raise Wrong(f"{type(error).__name__}: {str(error)[:300]}") from error
    if any(not t.is_cpu or t.is_sparse for _, t in judge.tensors(arguments)):
        return "not compared"
    try:
        with use_backend("torch"), torch.no_grad():
            plain = case.called(_copies(arguments, plain=True), "forward")
            exact = case.called(_copies(_wide(arguments), torch.float64), "forward")
    except Exception as error:
        raise Wrong(
            f"accepted, but not by plain torch: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    own = compare_of(op)
    if _extreme(arguments):  # with a sum that overflowed, statistics mix what is ours and what is not
        lost = own is not None and any(not t.isfinite().all() for _, t in judge.tensors(ours))
        ours = plain if lost else _excused(op, ours, plain)
    verdicts = _verdicts(ours, plain, exact) if own is None else own(arguments, ours, plain, exact)
    wrong = [verdict for verdict in verdicts if not verdict.right]
    if wrong:
        raise Wrong("; ".join(f"{v.what}: error {v.error:.3g}, allowed {v.allowed:.3g}" for v in wrong))
    if example.gradients:
        _try_gradient(case, arguments)
    return "right"


def _verdicts(ours: Any, plain: Any, exact: Any) -> list[judge.Verdict]:
    """Those of the judge; few different numbers, of which torch may happen to be exact, as the few that they are."""
    results = (ours, plain, exact)
    alike = all(isinstance(t, Tensor) and t.shape == exact.shape for t in results)
    if not alike or exact.numel() < judge.FEW or exact.unique().numel() >= judge.FEW:
        return judge.compare(*results)
    pieces = zip(*(t.flatten().split(judge.FEW - 1) for t in results), strict=True)
    return [verdict for piece in pieces for verdict in judge.compare(*piece)]


def _try_gradient(case: Case, arguments: dict[str, Any]) -> None:
    """The gradient is there, and a number wherever torch's is one; its digits are what the tests of the ops judge."""
    given = [arguments[name] for name in case.example.gradients if arguments.get(name) is not None]
    if any(t.is_inference() or t.is_neg() for _, t in judge.tensors(arguments)) or _extreme(arguments):
        return
    try:
        ours = case.called(_copies(arguments), "gradient")
        with use_backend("torch"):
            plain = case.called(_copies(arguments), "gradient")
    except Exception as error:
        raise Wrong(f"gradient: {type(error).__name__}: {str(error)[:300]}") from error
    for like, (name, one), other in zip(given, ours.items(), plain.values(), strict=True):
        if one.shape != like.shape or one.dtype != like.dtype:
            raise Wrong(f"{name} is {_told(one)}")
        if bool((other.isfinite() & ~one.isfinite()).any()):
            raise Wrong(f"{name} is no number where that of torch is one")


def _extreme(arguments: dict[str, Any]) -> bool:
    """Whether some input is infinite, or so large that its square and a factor do not fit float32."""
    if any(isinstance(value, float | int) and abs(value) > 1e15 for value in arguments.values()):
        return True
    given = [t.double() for _, t in judge.tensors(arguments) if t.is_floating_point() and t.numel()]
    return any(bool((t.abs() > 1e15).any()) for t in given)


def _excused(op: str, ours: Any, plain: Any) -> Any:
    """What overflows one product earlier or later than in torch, or vanishes (SiLU of minus infinity), is torch's.

    Beside a weight of 1e30 torch's group norm loses the bias, in float64 too: of its numbers none is compared.
    """
    if isinstance(ours, Tensor) and isinstance(plain, Tensor) and ours.shape == plain.shape:
        if not ours.is_floating_point():
            return plain  # of codes that are all infinitely far, no one is the nearest
        size, least = ours.abs(), float("inf") if op == "group_norm_silu" else 1e-30
        return torch.where((size > least) & (size < 1e30), ours, plain)
    if isinstance(ours, tuple) and isinstance(plain, tuple):
        parts = [_excused(op, one, other) for one, other in zip(ours, plain, strict=True)]
        return type(ours)(*parts) if hasattr(ours, "_fields") else tuple(parts)
    if isinstance(ours, dict) and isinstance(plain, dict):
        return {name: _excused(op, value, plain[name]) for name, value in ours.items()}
    return ours


def _wide(arguments: dict[str, Any]) -> dict[str, Any]:
    """For the noise alone float64 is an argument."""
    return arguments | {"dtype": torch.float64} if "stream" in arguments else arguments


def _copies(value: Any, dtype: torch.dtype | None = None, plain: bool = False) -> Any:
    """The same arguments in memory of their own, floating ones in `dtype`; what torch cannot copy stays.

    For plain torch, which writes to no tensor of inference mode, those are ordinary ones.
    """
    if isinstance(value, dict):
        return {name: _copies(part, dtype, plain) for name, part in value.items()}
    if isinstance(value, tuple):
        parts = [_copies(part, dtype, plain) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, Tensor) or value.is_meta or value.is_sparse or value.is_nested:
        return value
    wide = dtype if dtype is not None and value.is_floating_point() else None
    if value.is_neg() or value.is_conj():
        return value.to(wide) if wide else value
    if wide is None and value.is_inference():
        with torch.inference_mode(not plain):
            return value.clone()
    return copied(value, dtype=wide).requires_grad_(value.requires_grad and value.is_leaf)


def call(op: str, number: int) -> tuple[str, str]:
    """(outcome, what was done) of one call, which its number determines.

    Raises:
        Wrong: with all that is needed to see what went wrong.
    """
    draw = Draw(f"{op} {number}")
    torch.manual_seed(number)
    example = draw.choice(small_examples(op))
    arguments, done = spoilt(example.make(), draw)
    what = f"{example.name}: {', '.join(done) or 'as it is'}"
    return judged(op, example, arguments, f"call {number}, {what}"), what


def small_examples(op: str) -> list[Example]:
    """Those that take no time worth measuring."""
    return [example for example in examples_of(op) if not example.timed]


def judged(op: str, example: Example, arguments: dict[str, Any], what: str) -> str:
    """`outcome`, told with all that is needed to see what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return outcome(op, example, arguments)
    except Wrong as wrong:
        told = "\n".join(f"    {name}: {_told(value)}" for name, value in arguments.items())
        raise Wrong(f"{op} {what}\n    {wrong}\n{told}") from wrong


def _told(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)[:200]
    if value.is_nested:
        return f"nested {value.dtype}"
    strides = "" if value.is_sparse else f" strides {value.stride()}"
    return f"{tuple(value.shape)} {value.dtype} {value.device}{strides}"


def main(op: str, calls: int, first: int) -> int:
    dispatch.load()
    if op == "every":
        return max(main(one, calls, first) for one in sorted(dispatch.registered()) if examples_of(one))
    place = os.open(os.environ.get("FUZZ_CALL", os.devnull), os.O_WRONLY | os.O_CREAT, 0o600)
    counts: collections.Counter[str] = collections.Counter()
    wrong = 0
    examples = [partial(judged, op, one, one.make(), one.name) for one in small_examples(op)]
    drawn = [partial(call, op, number) for number in range(first, first + calls)]
    for number, run in enumerate([*examples, *drawn], first - len(examples)):
        os.pwrite(place, f"{number:<20}\n".encode(), 0)
        try:
            told = run()
            counts[told if isinstance(told, str) else told[0]] += 1
        except Wrong as error:
            wrong += 1
            if wrong <= 20:
                print(error, flush=True)
    print(f"{op}: {len(examples)} examples, {calls} calls, {dict(counts)}, {wrong} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
