"""Loads the compiled extensions once, and keeps the reason when one is not there."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import torch

INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


def _why_not_built(error: str, otherwise: str) -> str:
    facts = Path(__file__).parents[1] / "_build_info.json"
    told = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {}
    return str(told.get(error, otherwise))


def _load(name: str, error_key: str, otherwise: str) -> str:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return f"{name} was not built: {_why_not_built(error_key, otherwise)}"
    except (ImportError, OSError) as error:
        return f"{name} was built but does not load: {error}"
    return ""


def instruction_set() -> str:
    """The instruction set that the C++ kernels use here; ``FASTDIFF_CPU`` forces one.

    Raises:
        ValueError: the variable names an unknown set, or one that this processor does not run.
    """
    wanted, used = os.environ.get("FASTDIFF_CPU", ""), torch.ops.fastdiff.cpu_isa()
    if wanted and wanted != used:
        raise ValueError(
            f"FASTDIFF_CPU: must be one of {', '.join(INSTRUCTION_SETS)} that this processor runs, got {wanted!r}"
        )
    return str(used)


def register_fake(op: str) -> None:
    """Tell torch.compile that a registered op writes into its arguments and returns nothing.

    An op that the loaded extension does not have is noted: the extension was built from older sources.
    """
    if CUDA_MISSING if op.endswith("_cuda") else MISSING:
        return
    if hasattr(torch.ops.fastdiff, op):
        torch.library.register_fake(f"fastdiff::{op}", lambda *args, **kwargs: None)
    else:
        _ABSENT.append(op)


def raw(op: str) -> Any:
    """The forward kernel of an op in C++, looked up once; None where the extension is missing or lacks part of it.

    To be asked after `register_fake` of all the op's parts.
    """
    unfit = MISSING or outdated(op, "cpp")
    return None if unfit else getattr(torch.ops.fastdiff, f"{op}_cpp").default


def outdated(op: str, backend: str) -> str:
    """Why the extension of a backend ("cpp", "cuda") cannot serve an op; empty when it has all parts of it."""
    absent = [part for part in _ABSENT if part.startswith(op) and part.endswith(f"_{backend}")]
    return (
        f"the extension is older than this package, it lacks {', '.join(absent)}: install again"
        if absent
        else ""
    )


def _load_cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return _load("fastdiff._cuda", "cuda_error", "nvcc was not found at installation")


_ABSENT: list[str] = []
#: Why the C++ backend is not available; empty when it is.
MISSING = _load("fastdiff._C", "error", "torch was not there at installation, or FASTDIFF_NO_EXT was set")
#: Why the CUDA C++ backend is not available; empty when it is. No device is touched to find out.
CUDA_MISSING = _load_cuda()
if not MISSING:
    instruction_set()
