"""Norms on a GPU take in the sums around them; run here on the CPU, values and strides as eager torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.engine.program import Program

from .agreement import assert_equal, randomised
from .test_live import live, plan_of, targets

pytestmark = pytest.mark.usefixtures("fused")


class Block(nn.Module):
    """Everything that a norm may take in, read by others before and after it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.norm, self.wide = nn.GroupNorm(4, 8), nn.GroupNorm(4, 16)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.embed, self.gain = nn.Linear(5, 8), nn.Parameter(torch.ones(1, 8, 1, 1))
        self.rows = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor) -> Any:
        rows, a, b = self.embed(t)[:, :, None, None], self.first(x), self.second(x)
        silu = functional.silu
        if self.form == "bias and embedding":
            return silu(self.norm(a + rows))
        if self.form == "residual, read after":
            s = a + b
            return s + silu(self.norm(s))
        if self.form == "read before and after":
            s = a + b
            early = torch.tanh(s)
            return s * silu(self.norm(s)) + early
        if self.form == "joined":
            s = torch.cat([a + rows, x], 1)
            return silu(self.wide(s)) + s
        if self.form == "joined, its part read by others":
            s = a + b
            return silu(self.wide(torch.cat([s, x], 1))) * torch.cat([s, s], 1)
        if self.form == "after":
            return functional.normalize(a, dim=1) * self.gain + b
        if self.form == "more than it takes":
            return self.norm(a + b + x + torch.tanh(x))
        if self.form == "one bias for two":
            c = functional.conv2d(x, self.second.weight, self.first.bias)
            return self.norm(a + c) * torch.tanh(c)
        if self.form == "the sum is returned":
            s = a + rows
            return self.norm(s), s
        if self.form == "rows for linear maps":
            h = self.norm((a + x).flatten(2)).transpose(1, 2)
            return sum(one(h) for one in self.rows)
        s = x + x
        return self.norm(s + s)


FORMS = {
    "bias and embedding": "norm_silu_of_sum",
    "residual, read after": "norm_silu_and_sum",
    "read before and after": "norm_silu_and_sum",
    "joined": "norm_silu_and_sum",
    "joined, its part read by others": "norm_silu_of_sum",
    "after": "norm_silu_of_sum",
    "more than it takes": "norm_silu_of_sum",
    "one bias for two": "norm_silu_of_sum",
    "the sum is returned": "norm_silu_and_sum",
    "rows for linear maps": "norm_silu_of_sum",
    "twice the same": "norm_silu_of_sum",
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("form", FORMS)
def test_values_are_those_of_eager_torch(form: str, layout: torch.memory_format) -> None:
    net, made = randomised(Block(form)).to(memory_format=layout), list[Program]()
    x, t = torch.randn(2, 8, 6, 5).contiguous(memory_format=layout), torch.randn(2, 5)
    with torch.no_grad():
        got, wanted = live(net, made=made)(x, t), net(x, t)
    for one, other in zip(got, wanted) if isinstance(got, tuple) else [(got, wanted)]:
        assert_equal(one, other)
    assert f"fastdiff.{FORMS[form]}.default" in targets(plan_of(made[0]).graph)


def test_linear_maps_of_one_small_input_become_one() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(6, 4 + k) for k in range(6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([functional.silu(one(x)) for one in self.maps], 1)

    net, made, x = randomised(Many()), list[Program](), torch.randn(3, 6)
    with torch.no_grad():
        assert_equal(live(net, made=made)(x), net(x))
        for weight in net.parameters():  # read where they lie
            weight.data.mul_(2)
        assert_equal(live(net)(x), net(x))
    assert targets(plan_of(made[0]).graph).count("aten.linear.default") == 1
