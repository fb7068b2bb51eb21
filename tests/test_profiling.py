"""`fastdiff.profile`: the files it leaves, and the ranges of steps and ops in them."""

from __future__ import annotations

import collections
import json

import pytest
import torch

import fastdiff
from fastdiff.ops import dispatch


def ranges(folder):
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    names = collections.Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    return {name: count for name, count in names.items() if name.startswith("fastdiff::")}


def test_every_step_and_every_op_has_its_range(tmp_path):
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    with fastdiff.profile(tmp_path / "new") as profiler:
        fastdiff.sample(lambda x, t: net(x), 4, num=2, shape=(3, 8, 8), schedule="linear", prediction="eps")
    named = ranges(tmp_path / "new")
    assert sum(count for name, count in named.items() if "::solver_step (" in name) == 4
    assert {f"fastdiff::step {k}" for k in range(4)} <= set(named)
    assert "aten::convolution" in (tmp_path / "new" / "ops.txt").read_text()
    assert profiler.key_averages() and dispatch._observer is None


def test_an_error_inside_passes_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), fastdiff.profile(tmp_path):
        raise RuntimeError("mine")
    assert dispatch._observer is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), fastdiff.profile(tmp_path / "file" / "below"):
        pass


def test_nvtx_ranges_on_a_machine_with_cuda(monkeypatch, tmp_path):
    from fastdiff import profiling

    told = []

    class Range:
        def __init__(self, name):
            told.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(profiling, "_nvtx", Range)
    with fastdiff.profile(tmp_path):
        fastdiff.rng.normal([1], (2, 2))
    assert told[0] == "fastdiff::step 0" and told[1].startswith("fastdiff::normal (")
