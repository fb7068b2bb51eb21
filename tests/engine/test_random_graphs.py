"""Random small networks of convolutions, norms, activations, concatenations and attention give eager torch's values.

Strides are not compared: after attention on a batch of one, torch's own tracing foretells others than eager has
(docs/engine.md).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from .agreement import assert_same_values, randomised

WIDTHS = (8, 16, 24)
OPS = (
    "conv3",
    "conv1",
    "stride",
    "double",
    "group",
    "rms",
    "silu",
    "gate",
    "shift",
    "cat",
    "residual",
    "attend",
    "gain",
)


class Drawn(nn.Module):
    """A chain of drawn operations; `cat` and `residual` reach back to an earlier map of the same size."""

    def __init__(self, ops, width):
        super().__init__()
        self.ops, self.parts = ops, nn.ModuleList()
        c, self.first = width, nn.Conv2d(3, width, 3, padding=1)
        for op in ops:
            grows = c * 2 if op == "cat" else c
            part = {
                "conv3": lambda c=c: nn.Conv2d(c, width, 3, padding=1),
                "conv1": lambda c=c: nn.Conv2d(c, width, 1, bias=False),
                "stride": lambda c=c: nn.Conv2d(c, width, 3, stride=2, padding=1),
                "group": lambda c=c: nn.GroupNorm(4, c),
                "shift": lambda c=c: nn.Linear(1, 2 * c),
            }.get(op, nn.Identity)()
            self.parts.append(part)
            c = width if op in ("conv3", "conv1", "stride") else grows

    def forward(self, x, t):
        x, maps = self.first(x), []
        for op, part in zip(self.ops, self.parts):
            maps.append(x)
            same = [m for m in maps if m.shape == x.shape]
            if op == "double":
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
            elif op == "rms":
                x = functional.normalize(x, dim=1) * x.shape[1] ** 0.5
            elif op == "silu":
                x = functional.silu(x)
            elif op == "gate":
                x = x * torch.sigmoid(x)
            elif op == "shift":
                scale, shift = part(t[:, None])[:, :, None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
            elif op == "cat":
                x = torch.cat([x, same[0]], dim=1)
            elif op == "residual":
                x = x + same[0]
            elif op == "attend":
                rows = x.flatten(2).transpose(1, 2)
                scores = (rows @ rows.transpose(1, 2) * rows.shape[-1] ** -0.5).softmax(-1)
                x = (scores @ rows).transpose(1, 2).reshape(x.shape)
            elif op == "gain":
                x = x / 1.5
            else:
                x = part(x)
        return x


@pytest.mark.slow
@pytest.mark.usefixtures("fused")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ops=st.lists(st.sampled_from(OPS), min_size=2, max_size=9).filter(lambda ops: ops.count("double") < 3),
    width=st.sampled_from(WIDTHS),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(7, 18), st.integers(7, 18)),
)
def test_random_networks(ops, width, batch, size):
    torch.compiler.reset()
    net = randomised(Drawn(ops, width))
    x, t = torch.randn(batch, 3, *size), torch.rand(batch)
    with torch.no_grad():
        assert_same_values(torch.compile(net, backend="fastdiff")(x, t), net(x, t))
