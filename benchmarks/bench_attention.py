"""Attention against torch's own, where the C++ kernel is chosen and where it is not.

On a GPU against each way of torch, and against xformers and flash-attn where they are installed.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cases import ATTENTIONS
from benchmarks.clocks import Candidate
from benchmarks.measure import kind
from fastdiff.ops import attention, use_backend

#: Ways of torch on a GPU.
WAYS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
#: Largest error beside the largest value of an exact result.
ALLOWED = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def drawn(batch: int, heads: int, queries: int, keys: int, width: int) -> list[Tensor]:
    """q, k, v (B, heads, rows, width), heads beside each other as the network's projections leave them."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, rows, heads, width, generator=generator).transpose(1, 2)
        for rows in (queries, keys, keys)
    ]


def way_of_torch(name: str, q: Tensor, k: Tensor, v: Tensor) -> Candidate:
    backend = getattr(SDPBackend, name)

    def call() -> Tensor:
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(q, k, v)

    return call


def by_triton(q: Tensor, k: Tensor, v: Tensor) -> Candidate:
    def call() -> Tensor:
        with use_backend("triton"):
            return attention(q, k, v)

    return call


def xformers(q: Tensor, k: Tensor, v: Tensor) -> Candidate:
    from xformers.ops import memory_efficient_attention

    rows = [t.transpose(1, 2) for t in (q, k, v)]
    return lambda: memory_efficient_attention(*rows).transpose(1, 2)


def flash_attn(q: Tensor, k: Tensor, v: Tensor) -> Candidate:
    from flash_attn import flash_attn_func

    rows = [t.transpose(1, 2) for t in (q, k, v)]
    return lambda: flash_attn_func(*rows).transpose(1, 2)


def of_a_gpu(q: Tensor, k: Tensor, v: Tensor) -> tuple[dict[str, Candidate], dict[str, str]]:
    """What else a GPU can run, and why not the rest."""
    found: dict[str, Candidate] = {"fastdiff, triton": by_triton(q, k, v)}
    found |= {f"torch {name}": way_of_torch(name, q, k, v) for name in WAYS}
    cannot = {}
    for name, maker in (("xformers", xformers), ("flash-attn", flash_attn)):
        try:
            found[name] = maker(q, k, v)
        except Exception as error:
            cannot[name] = f"{type(error).__name__}: {error}"
    return found, cannot


def right(candidates: dict[str, Candidate], exact: Tensor, dtype: torch.dtype) -> dict[str, str]:
    """Takes out what fails or errs, and says why; ours must not."""
    cannot = {}
    for name in list(candidates):
        try:
            error = float((candidates[name]().double() - exact).abs().max() / exact.abs().max())
            why = "" if error <= ALLOWED[dtype] else f"its result is wrong: error {error:.1e}"
        except Exception as failure:
            why = f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0][:160]}"
        if why:
            assert name != "fastdiff", why
            del candidates[name]
            cannot[name] = why
    return cannot


@pytest.mark.parametrize("shape", ATTENTIONS.values(), ids=ATTENTIONS.keys())
def bench_attention(duel, place, dtype, shape):
    q, k, v = (t.to(place, dtype) for t in drawn(*shape))
    batch, heads, queries, keys, width = shape
    work = 4 * batch * heads * queries * keys * width
    candidates: dict[str, Candidate] = {
        "fastdiff": lambda: attention(q, k, v),
        "torch sdpa": lambda: functional.scaled_dot_product_attention(q, k, v),
    }
    cannot = {}
    if place != "cpu":
        more, cannot = of_a_gpu(q, k, v)
        candidates |= more
    exact = functional.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
    cannot |= right(candidates, exact, dtype)
    bar = 1.2 if (queries, width) in {(1024, 64), (256, 32)} and queries == keys else 0.95
    result = duel(
        f"attention, {shape}{kind(dtype)}",
        candidates,
        check=lambda: None,  # made above
        rounds=40 if work < 1e10 or place != "cpu" else 10,
        shape=shape,
        flops=work,
        bar={"torch sdpa": bar} if place == "cpu" else {},
        cannot=cannot,
    )
    print(f"    {work / result.time_ms['fastdiff'].median / 1e6:.0f} GFLOP/s")
