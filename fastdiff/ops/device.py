"""Backends that run on a GPU: what they need of this machine, and what they refuse.

Triton kernels are `fastdiff.kernels` and are imported by their first call. With ``TRITON_INTERPRET=1`` they run on
the CPU, slowly, in triton's interpreter, for tests.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from .arguments import wants_gradient

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"


def _without_triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if importlib.util.find_spec("fastdiff.kernels") is None:
        return (
            "fastdiff.kernels is not installed: this installation is older than it, or runs from its sources"
        )
    if torch.version.cuda is None and not INTERPRETED:
        return (
            "this torch is built without CUDA (TRITON_INTERPRET=1 runs the kernels in triton's interpreter)"
        )
    return ""


def triton_reasons(inputs: dict[str, Any], *contiguous: str, trains: bool = False) -> list[str]:
    """Why a Triton kernel cannot run these inputs, of which the named ones have to be contiguous."""
    return _reasons("cpu" if INTERPRETED else "cuda", inputs, contiguous, trains)


def cuda_reasons(inputs: dict[str, Any], *contiguous: str) -> list[str]:
    """Why a CUDA C++ kernel cannot run these inputs, of which the named ones have to be contiguous."""
    reasons = [
        f"{name} has {value.dim()} dimensions, it takes at most 8"
        for name, value in inputs.items()
        if isinstance(value, Tensor) and name != "history" and value.dim() > 8
    ]
    return reasons + _reasons("cuda", inputs, contiguous, trains=False)


def _reasons(where: str, inputs: dict[str, Any], contiguous: tuple[str, ...], trains: bool) -> list[str]:
    reasons = [
        f"{name} is on {value.device}, it runs on {where}"
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.device.type != where
    ]
    reasons += [
        f"{name} is not contiguous"
        for name in contiguous
        if isinstance(inputs[name], Tensor) and not inputs[name].is_contiguous()
    ]
    if not trains and wants_gradient(*inputs.values()):
        reasons.append("a gradient is wanted, it has none")
    return reasons


#: Why no Triton kernel can run here; empty when one can. No device is touched to find out.
WITHOUT_TRITON = _without_triton()
