"""Attention against torch's own, where the C++ kernel is chosen and where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cases import ATTENTIONS
from fastdiff.ops import attention


def drawn(batch: int, heads: int, queries: int, keys: int, width: int) -> list[Tensor]:
    """q, k, v (B, heads, rows, width), heads beside each other as the network's projections leave them."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, rows, heads, width, generator=generator).transpose(1, 2)
        for rows in (queries, keys, keys)
    ]


@pytest.mark.parametrize("shape", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def bench_attention(duel, shape):
    q, k, v = drawn(*shape)

    def check() -> None:
        exact = functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
        torch.testing.assert_close(attention(q, k, v).double(), exact, rtol=1e-4, atol=1e-5)

    batch, heads, queries, keys, width = shape
    work = 4 * batch * heads * queries * keys * width
    result = duel(
        f"attention, {shape}",
        {
            "fastdiff": lambda: attention(q, k, v),
            "torch sdpa": lambda: functional.scaled_dot_product_attention(q, k, v),
        },
        check=check,
        rounds=40 if work < 1e10 else 10,
        shape=shape,
        flops=work,
        bar={"torch sdpa": 1.2 if (queries, width) in {(1024, 64), (256, 32)} and queries == keys else 0.95},
        cannot={"xformers, flash-attn": "need a GPU"},
    )
    print(f"    {work / result.time_ms['fastdiff'].median / 1e6:.0f} GFLOP/s")
