"""Inputs on which the doctor examines an op, one file per op; the random calls of the tests start from them too.

The file of an op gives `examples()`, and may give `compare(arguments, ours, plain, exact)` where an op is not judged
by the usual rule. An op without a file is reported as not examined.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastdiff.doctor.judge import Verdict

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Arguments = dict[str, Any]
Compare = Callable[[Arguments, Any, Any, Any], list[Verdict]]


@dataclass(frozen=True)
class Example:
    """Arguments of an op's public function.

    Attributes:
        name: shapes, dtype and what is special, in a few words.
        make: the arguments by keyword, on the CPU, the same at every call.
        timed: the size of a real model, so that backends are timed on it.
        written: names of arguments that the op writes.
        gradients: names of arguments whose gradient is examined too.
    """

    name: str
    make: Callable[[], Arguments]
    timed: bool = False
    written: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()


def _module(op: str) -> ModuleType | None:
    name = f"{__name__}.{op}"
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def examples_of(op: str) -> list[Example]:
    """The examples of an op; none where it has no file."""
    module = _module(op)
    return [] if module is None else list(module.examples())


def compare_of(op: str) -> Compare | None:
    """How an op's results are judged where the usual rule does not do."""
    return getattr(_module(op), "compare", None)


def normals(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same for a seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def short(dtype: torch.dtype) -> str:
    """float32 for torch.float32."""
    return str(dtype).removeprefix("torch.")


def product(shapes: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], torch.dtype, str]]:
    """(shape, dtype, name) for every shape in every floating type."""
    for shape in shapes:
        for dtype in FLOATS:
            yield shape, dtype, f"{'x'.join(map(str, shape))} {short(dtype)}"
