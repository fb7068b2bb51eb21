"""The Triton kernels: run in the interpreter, compiled ahead of time, and read as machine code."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastdiff.ops import device, solver_step, use_backend

from .conftest import table_of

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


@needs_triton
@pytest.mark.parametrize(
    "room",
    [
        "interpreted_triton",
        "interpreted_norms",
        "interpreted_sums",
        "interpreted_vq",
        "interpreted_attention",
    ],
)
def test_kernels_are_right_in_the_interpreter(room):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / f"{room}.py")],
        cwd=HERE.parents[1],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(device.INTERPRETED, reason="the kernels run in the interpreter here")
def test_on_a_cpu_the_refusal_says_why():
    x = torch.zeros(2, 3, 4, 4)
    with (
        use_backend("triton"),
        pytest.raises(ValueError, match="`triton`: (this torch|triton|x is on|fastdiff)"),
    ):
        solver_step(table_of({"b": 1.0}), 0, x)
