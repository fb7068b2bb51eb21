"""Every op goes by what the doctor found: for the class of the call, on this device, where the backend can run it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from fastdiff import info, ops
from fastdiff.doctor.examples import examples_of
from fastdiff.ops import dispatch, shape_classes, winners
from tests.ops.conftest import needs_cpp

dispatch.load()
pytestmark = needs_cpp
#: Attention has a test of its own; sums of codes are the same every time, whatever is faster.
OPS = sorted(set(dispatch.registered()) - {"attention", "vq_code_sums"})


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FASTDIFF_WINNERS", "1")
    winners.forget()
    yield
    monkeypatch.undo()
    winners.forget()


def chosen(op, arguments):
    """(backend, class) of a call."""
    seen = []

    @contextmanager
    def noted(name, backend, inputs):
        seen.append((backend.name, dispatch.shape_class(name, inputs)))
        yield

    with dispatch.observing(noted):
        getattr(ops, op)(**arguments)
    return seen[-1]


def found(op, of_class, backend):
    winners.store(winners.device_name("cpu"), {op: {of_class: backend}})


def timed(op):
    return min((e for e in examples_of(op) if not e.timed), key=lambda e: ("float32" not in e.name, e.name))


def test_sums_of_codes_stay_deterministic():
    arguments = timed("vq_code_sums").make()
    for example in examples_of("vq_code_sums"):
        found("vq_code_sums", example.name, "torch")
        assert chosen("vq_code_sums", arguments)[0] == "cpp"


@pytest.mark.parametrize("op", OPS)
def test_every_op_goes_by_the_winner_of_its_class(op, monkeypatch):
    arguments = timed(op).make()
    backend, of_class = chosen(op, arguments)
    assert backend == "cpp" and of_class
    found(op, of_class, "torch")
    assert chosen(op, arguments) == ("torch", of_class)
    found(op, "another class", "torch")
    assert chosen(op, arguments)[0] == "cpp"
    found(op, of_class, "torch")
    monkeypatch.setenv("FASTDIFF_WINNERS", "0")
    winners.forget()
    assert chosen(op, arguments)[0] == "cpp"


def test_attention_takes_torch_where_the_doctor_found_it_faster(monkeypatch):
    monkeypatch.setattr("fastdiff.ops.attention_choice.reasons", lambda *_: [])
    q = torch.randn(1, 4, 64, 32)
    assert chosen("attention", {"q": q, "k": q, "v": q}) == ("cpp", "torch.float32 4x64x64 of 32")
    found("attention", "torch.float32 4x64x64 of 32", "torch")
    assert chosen("attention", {"q": q, "k": q, "v": q})[0] == "torch"


X = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
NORM = {"x": X, "groups": 2}


def test_a_winner_that_refuses_the_call_is_passed_over():
    _, of_class = chosen("group_norm_silu", {"x": X.double(), "groups": 2})
    for winner in ("cpp", "cuda", "triton", "no such backend"):
        found("group_norm_silu", of_class, winner)
        assert chosen("group_norm_silu", {"x": X.double(), "groups": 2})[0] == "torch"


def test_what_is_forced_and_what_wants_a_gradient_is_not_asked():
    _, of_class = chosen("group_norm_silu", NORM)
    found("group_norm_silu", of_class, "torch")
    with ops.use_backend("cpp"):
        assert chosen("group_norm_silu", NORM)[0] == "cpp"
    assert chosen("group_norm_silu", {"x": X.clone().requires_grad_(), "groups": 2})[0] == "cpp"
    with pytest.raises(ValueError, match=r"group_norm_silu: groups must divide the 8 channels, got 3"):
        ops.group_norm_silu(X, 3)
    with pytest.raises(TypeError, match=r"group_norm_silu: x must be"):
        ops.group_norm_silu("x", 2)  # type: ignore[arg-type]


def test_the_file_is_read_once_and_only_for_another_choice(monkeypatch):
    _, of_class = chosen("group_norm_silu", NORM)
    found("group_norm_silu", of_class, "torch")
    reads, read = [], winners.read
    monkeypatch.setattr(winners, "read", lambda *a: reads.append(1) or read(*a))
    for _ in range(3):
        chosen("group_norm_silu", NORM)
    assert len(reads) == 1
    monkeypatch.setattr(winners, "winner", None)  # would be an error where it is asked
    chosen("rms_norm_silu", {"x": X})
    found("rms_norm_silu", "any class", "cpp")
    chosen("rms_norm_silu", {"x": X})


def test_a_class_does_not_tell_the_batch_but_format_size_and_what_is_fused():
    of = shape_classes.of_maps
    assert of(X) == of(X[:1]) == of(X.repeat(5, 1, 1, 1)) == "torch.float32 1024"
    assert of(X.contiguous(memory_format=torch.channels_last)) == "torch.float32 1024 channels last"
    assert of(X.half(), add=X, norm=None, activate=False, upsample=True) == (
        "torch.float16 1024 with add, upsample"
    )
    assert shape_classes.of_rows(X[0], 500) == "torch.float32 6 wide, 1024 codes"
    assert [shape_classes.rounded(n) for n in (0, 1, 2, 4, 5, 4096, 4097)] == [1, 1, 4, 4, 16, 4096, 16384]


def test_compiled_calls_go_by_the_winner_too():
    _, of_class = chosen("group_norm_silu", NORM)
    found("group_norm_silu", of_class, "torch")
    graphs = []

    def backend(graph, _):
        graphs.append(str(graph.code))
        return graph

    torch._dynamo.reset()
    call = torch.compile(lambda x: ops.group_norm_silu(x, 2), backend=backend, fullgraph=True, dynamic=True)
    torch.testing.assert_close(call(X), ops.group_norm_silu(X, 2))
    assert "group_norm_silu_cpp" not in graphs[0]
    big = torch.randn(2, 8, 60, 60)
    torch.testing.assert_close(call(big), ops.group_norm_silu(big, 2))
    assert "group_norm_silu_cpp" in graphs[-1] and len(graphs) == 2
    torch._dynamo.reset()


def test_info_tells_the_winners_and_why_there_are_none(monkeypatch):
    assert "none: `fastdiff doctor` has not run here" in info.as_text(info.collect())
    winners.store("A", {"group_norm_silu": {"small": "torch", "large": "cpp", "larger": "cpp"}})
    text = info.as_text(info.collect())
    assert "group_norm_silu: cpp for large; larger\n    group_norm_silu: torch for small\n" in text
    monkeypatch.setenv("FASTDIFF_WINNERS", "0")
    assert "none: ignored, because FASTDIFF_WINNERS is 0" in info.as_text(info.collect())
    monkeypatch.setenv("FASTDIFF_WINNERS", "yes")
    with pytest.raises(ValueError, match="FASTDIFF_WINNERS: must be 0 or 1, got 'yes'"):
        info.collect()
