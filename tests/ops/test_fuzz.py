"""Random calls of every op, in a process of their own: right, or refused in words; never a crash."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastdiff import ops
from fastdiff.doctor.examples import examples_of
from fastdiff.ops import dispatch, extension

dispatch.load()
FUZZ = Path(__file__).with_name("fuzz.py")
OPS = [op for op in sorted(dispatch.registered()) if examples_of(op)]


def fuzz(op: str, calls: int, first: int, tmp_path: Path) -> None:
    run(tmp_path, FUZZ, op, str(calls), str(first))


def run(tmp_path: Path, program: Path, *arguments: str) -> None:
    place = tmp_path / "call"
    command = [sys.executable, "-X", "faulthandler", str(program), *arguments]
    environment = os.environ | {"FUZZ_CALL": str(place)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    at = place.read_text().strip() if place.exists() else "none"
    assert result.returncode == 0, f"at call {at}:\n{result.stdout[-6000:]}\n{result.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_some_random_calls(op: str, tmp_path: Path) -> None:
    fuzz(op, 60, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("op", OPS)
def test_ten_thousand_random_calls(op: str, tmp_path: Path) -> None:
    fuzz(op, 10_000, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(bool(extension.MISSING), reason="the C++ backend is not here")
def test_random_calls_of_raw_operators(tmp_path: Path) -> None:
    run(tmp_path, FUZZ.with_name("fuzz_raw.py"), "3000", "0")


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as a module."""
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    return importlib.import_module("fuzz")


@pytest.mark.parametrize(
    ("op", "number", "told"),
    [
        ("attention", 7588, "right"),  # queries that share memory
        ("attention", 9456, "right"),
        ("attention", 13000199, "right"),  # the gradient of keys whose rows share memory
        ("add_noise", 7223, "right"),  # one number of noise near zero
        ("add_noise", 7000578, "right"),  # few numbers of offset noise
        ("add_noise", 7001019, "right"),
        ("solver_step", 22253, "refused"),  # an empty batch with a row on another device
        ("solver_step", 9002649, "right"),  # a mask of 3e38
        ("vq_nearest", 7001551, "right"),  # no distance fits float32, and none is asked for
    ],
)
def test_random_calls_that_were_wrong_once(fuzzing: ModuleType, op: str, number: int, told: str) -> None:
    assert fuzzing.call(op, number)[0] == told


def test_a_wrong_number_and_a_foreign_error_are_noticed(
    fuzzing: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge of the random calls can fail."""
    example = next(one for one in examples_of("vq_code_sums") if "37x5x3 float32" in one.name)
    assert fuzzing.outcome("vq_code_sums", example, example.make()) == "right"
    assert fuzzing.outcome("vq_code_sums", example, example.make() | {"codes": 0}) == "refused"
    right = ops.vq_code_sums

    def wrong(**arguments):
        if dispatch.forced_backend() is None:
            return right(arguments["z"] + 1, arguments["index"], arguments["codes"])
        return right(**arguments)

    monkeypatch.setattr(ops, "vq_code_sums", wrong)
    with pytest.raises(fuzzing.Wrong, match="sums: error"):
        fuzzing.outcome("vq_code_sums", example, example.make())

    example = fuzzing.small_examples("rms_norm_silu")[0]
    plain = ops.rms_norm_silu

    def lost(**arguments):
        y = plain(**arguments)
        if dispatch.forced_backend() is None and y.requires_grad:
            y.register_hook(lambda gradient: gradient * float("nan"))
        return y

    monkeypatch.setattr(ops, "rms_norm_silu", lost)
    with pytest.raises(fuzzing.Wrong, match="is no number where that of torch is one"):
        fuzzing.outcome("rms_norm_silu", example, example.make())

    def failing(**arguments):
        raise ValueError("math domain error")

    monkeypatch.setattr(ops, "vq_code_sums", failing)
    with pytest.raises(fuzzing.Wrong, match="refused without the form"):
        fuzzing.outcome("vq_code_sums", example, example.make())
