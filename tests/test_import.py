"""Importing fastdiff is light: nothing heavy comes along, no device is touched, and it costs little more than torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastdiff

HEAVY = (
    "triton",
    "PIL",
    "matplotlib",
    "tyro",
    "sklearn",
    "scipy",
    "accelerate",
    "tensorboard",
    "torch._inductor",
)
EVERYTHING = "import fastdiff; [getattr(fastdiff, name) for name in fastdiff.__all__]"


def _python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("statement", ["import fastdiff", EVERYTHING])
def test_nothing_heavy_comes_along(statement: str) -> None:
    loaded = _python(f"import sys; {statement}; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]"


def test_no_gpu_is_touched() -> None:
    assert _python(f"{EVERYTHING}; import torch; print(torch.cuda.is_initialized())") == "False"


def _import_seconds(statement: str) -> float:
    """Processor seconds of one statement in a fresh interpreter: other work counts less than by a clock."""
    code = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    return float(_python(code))


@pytest.mark.parametrize("statement", ["import fastdiff", "import fastdiff; fastdiff.sample"])
def test_import_costs_at_most_a_third_more_than_torch(statement: str) -> None:
    """The least of a few rounds; beside other work, which slows both down by chance, of a few more."""
    ours = torch = float("inf")
    for rounds in range(1, 9):
        ours = min(ours, _import_seconds(statement))
        torch = min(torch, _import_seconds("import torch"))
        if rounds >= 2 and ours <= 1.3 * torch:
            return
    raise AssertionError((ours, torch))


def test_every_public_name_is_there_and_an_unknown_one_is_not() -> None:
    for name in fastdiff.__all__:
        assert getattr(fastdiff, name) is not None
    assert set(fastdiff.__all__) <= set(dir(fastdiff))
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = fastdiff.smaple
