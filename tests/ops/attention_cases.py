"""What the tests of the attentions share: inputs in the layouts that networks have, and one run on one backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fastdiff.ops import use_backend

HALVES = (torch.float16, torch.bfloat16)
LAYOUTS = ("heads first", "heads beside each other", "channels first", "sliced")
cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "batch": st.integers(0, 2),
        "heads": st.integers(1, 3),
        "queries": st.integers(1, 90),
        "keys": st.integers(1, 90),
        "width": st.sampled_from([1, 7, 8, 16, 24, 33, 40, 64, 72]),
        "layout": st.sampled_from(LAYOUTS),
        "values": st.sampled_from(["usual", "loud", "equal scores", "far from zero"]),
        "dtype": st.sampled_from([torch.float32, *HALVES]),
    }
)
USUAL: dict[str, Any] = {
    **{"seed": 0, "batch": 1, "heads": 2, "queries": 64, "keys": 64, "width": 32},
    **{"layout": "heads beside each other", "values": "usual", "dtype": torch.float32},
}


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same (B, heads, rows, width) in the memory order of another layout."""
    if layout == "heads beside each other":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "channels first":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return torch.cat([x, x, x], dim=-1)[..., : x.shape[-1]] if layout == "sliced" else x


def make(case: dict[str, Any]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """[q, k, v] and a gradient of the result."""
    generator = np.random.default_rng(case["seed"])

    def drawn(rows: int) -> torch.Tensor:
        x = torch.from_numpy(generator.normal(size=(case["batch"], case["heads"], rows, case["width"])))
        if case["values"] == "loud":
            x *= 12
        if case["values"] == "far from zero":
            x += 20
        return laid_out(x.to(case["dtype"]), case["layout"])

    q, k, v = drawn(case["queries"]), drawn(case["keys"]), drawn(case["keys"])
    if case["values"] == "equal scores":
        q, k = torch.full_like(q, 0.7), torch.full_like(k, 0.7)
    return [q, k, v], drawn(case["queries"])


def results(
    op: Callable[..., torch.Tensor], backend: str, inputs: list[torch.Tensor], gradient: torch.Tensor
) -> list[torch.Tensor]:
    """The output and the gradients of the inputs, on one backend ("exact": torch in float64)."""
    exact = backend == "exact"
    leaves = [(x.double() if exact else x).detach().requires_grad_() for x in inputs]
    with use_backend("torch" if exact else backend):
        out = op(*leaves)
    out.backward(gradient.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]
