"""Choosing a backend, by force and by the environment."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from fastdiff.ops import dispatch, extension, use_backend


def test_forcing_is_undone_even_after_an_error():
    before = dispatch.forced_backend()
    with pytest.raises(RuntimeError), use_backend("torch"):
        assert dispatch.forced_backend() == "torch"
        raise RuntimeError
    assert dispatch.forced_backend() == before


def test_unknown_backend_lists_the_known():
    with pytest.raises(
        ValueError, match="use_backend: backend must be one of cuda, triton, cpp, torch, got 'cublas'"
    ):
        with use_backend("cublas"):
            pass


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FASTDIFF_BACKEND", "gpu", "FASTDIFF_BACKEND: backend must be one of"),
        ("FASTDIFF_CPU", "sse9", "FASTDIFF_CPU: must be one of avx512, avx2, baseline"),
    ],
)
def test_wrong_environment_is_refused(name, value, message):
    from fastdiff.ops import extension

    if name == "FASTDIFF_CPU" and extension.MISSING:
        pytest.skip(f"the C++ backend is not here: {extension.MISSING}")
    run = subprocess.run(
        [sys.executable, "-c", "import fastdiff.ops"],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0 and message in run.stderr


def test_a_backend_that_an_op_does_not_have_is_named():
    only = (dispatch.Backend("torch", lambda: 1, list),)
    with use_backend("triton"), pytest.raises(ValueError, match="`triton`: toy has no such backend"):
        dispatch.run("toy", only, {}, lambda inputs: None)


def test_every_op_ends_with_the_reference():
    for op, backends in dispatch.registered().items():
        assert backends[-1].name == "torch" and not backends[-1].missing, op


@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_other_instruction_sets_compute_the_same(isa):
    """The examples of every op, in a process that uses the kernels of another instruction set."""
    from fastdiff.ops import extension

    if extension.MISSING:
        pytest.skip(f"the C++ backend is not here: {extension.MISSING}")
    if isa == "avx2" and extension.instruction_set() == "baseline":
        pytest.skip("this processor has no AVX2")
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "every", "0", "0"]
    run = subprocess.run(command, env=os.environ | {"FASTDIFF_CPU": isa}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def test_an_extension_older_than_the_package_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "MISSING", "")
    monkeypatch.setattr(extension, "_ABSENT", [])
    monkeypatch.setattr(dispatch, "_OPS", {})
    extension.register_fake("newest_op_backward_cpp")
    cpp = dispatch.Backend("cpp", lambda **_: "cpp", lambda **_: [])
    plain = dispatch.Backend("torch", lambda **_: "torch", lambda **_: [])
    backends = dispatch.register("newest_op", cpp, plain)
    assert "older than this package, it lacks newest_op_backward_cpp" in backends[0].missing
    assert dispatch.run("newest_op", backends, {}, lambda _: None) == "torch"
    assert dispatch.register("another_op", cpp, plain) == (cpp, plain)


@pytest.mark.parametrize(
    ("x", "asked"),
    [
        (torch.zeros(1), False),
        (torch.zeros(1, requires_grad=True), True),
        (torch.zeros(1, device="meta"), True),
    ],
)
def test_reasons_of_a_backend_that_refuses_are_asked_where_it_cannot_see(x, asked):
    seen = []
    quick = dispatch.Backend(
        "cpp", lambda x: "quick", lambda x: seen.append(x) or ["no"], verifies=True, refuses=True
    )
    plain = dispatch.Backend("torch", lambda x: "plain", lambda x: [])
    assert dispatch.run("toy", (quick, plain), {"x": x}, lambda inputs: None) == (
        "plain" if asked else "quick"
    )
    assert bool(seen) == asked


@pytest.mark.parametrize("reasons", [[], ["it is float64"]])
def test_what_a_backend_refuses_goes_to_the_next_only_if_it_has_a_reason(reasons):
    def refuse(x):
        raise RuntimeError("float64")

    quick = dispatch.Backend("cpp", refuse, lambda x: reasons, verifies=True, refuses=True)
    plain = dispatch.Backend("torch", lambda x: "plain", lambda x: [])
    call = partial(dispatch.run, "toy", (quick, plain), {"x": torch.zeros(1)}, lambda inputs: None)
    if reasons:
        assert call() == "plain"
    else:
        with pytest.raises(RuntimeError, match="float64"):
            call()
