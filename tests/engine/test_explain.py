"""The explanation names what was fused and says why the rest was not."""

from __future__ import annotations

import pytest
import torch

from fastdiff.engine import explain
from fastdiff.engine.graph_ops import CONVOLVES

from .spelled import SpelledUNet


def test_steps_of_a_network():
    told = explain(SpelledUNet("guided", 32).eval(), torch.randn(2, 3, 16, 16), torch.tensor([1.0, 2.0]))
    names = [step.name for step in told.steps]
    assert told.eager == [] and told.packed_bytes > 0
    assert all(step.milliseconds > 0 for step in told.steps)
    assert ("conv1x1" if CONVOLVES else "packed_linear") in names and (
        "stride 2" if CONVOLVES else "stride [2, 2]"
    ) in str(told)
    if CONVOLVES:
        fused = [step.fused for step in told.steps if step.name == "conv3x3"]
        assert len(fused) >= 7 and "aten" not in str(names[names.index("conv3x3")])
        assert any("concatenation, norm, SiLU" in f for f in fused) and any("upsampling" in f for f in fused)
        assert any("residual" in f for f in fused) and any("statistics" in f for f in fused)
        products = [step.fused for step in told.steps if step.name == "conv1x1"]
        assert any("norm" in f for f in products) and any("residual" in f for f in products)


def test_what_is_left_to_eager_torch_is_told():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(0.5)).train()
    told = explain(net, torch.randn(1, 3, 8, 8))
    assert told.steps == [] and "random numbers" in str(told)


def test_only_modules_are_explained():
    with pytest.raises(TypeError, match="explain: net must be a module, got function"):
        explain(lambda x: x, torch.zeros(1))
