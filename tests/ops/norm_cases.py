"""What the tests of the normalisations share: maps that are hard to normalise, and one run on one backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fastdiff.ops import use_backend

HALVES = (torch.float16, torch.bfloat16)
VALUES = ("usual", "far from zero", "large", "equal", "one loud pixel", "zero")
LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced")
Inputs = dict[str, torch.Tensor | None]

cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "batch": st.integers(0, 5),
        "groups": st.sampled_from([1, 2, 3, 4, 8, 32]),
        "width": st.integers(1, 21),
        "sizes": st.lists(st.integers(1, 19), min_size=0, max_size=3),
        "values": st.sampled_from(VALUES),
        "layout": st.sampled_from(LAYOUTS),
        "dtype": st.sampled_from([torch.float32, *HALVES]),
        "left_out": st.sets(st.sampled_from(["weight", "bias", "scale", "shift"])),
        "activate": st.booleans(),
    }
)


def drawn(generator: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(generator.normal(size=shape))


def valued(x: torch.Tensor, values: str) -> torch.Tensor:
    """Turn standard normal numbers into numbers that trip up a careless statistic."""
    if values == "far from zero":
        return 1e3 + 1e-2 * x
    if values == "large":
        return 300 + 20 * x
    if values == "equal":
        return torch.full_like(x, 0.7)
    if values == "one loud pixel" and x.numel():
        x.view(-1)[0] = 500.0
    return torch.zeros_like(x) if values == "zero" else x


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers in other strides; a layout that does not exist for these dimensions is the contiguous one."""
    if layout == "channels_last" and x.dim() in (4, 5):
        last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        return x.contiguous(memory_format=last)
    if layout == "permuted" and x.dim() > 2:
        return x.transpose(0, 2).contiguous().transpose(0, 2)
    if layout == "sliced":
        return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]
    return x


def make(case: dict[str, Any]) -> tuple[Inputs, torch.Tensor]:
    """Inputs of a normalisation and a gradient of its result, float32 where they are not half."""
    generator = np.random.default_rng(case["seed"])
    batch, channels = case["batch"], case["groups"] * case["width"]
    shape = (batch, channels, *case["sizes"])
    x = valued(drawn(generator, *shape), case["values"]).to(case["dtype"])
    scale, shift = drawn(generator, batch, 2 * channels).float().chunk(2, dim=1)
    inputs: Inputs = {"x": laid_out(x, case["layout"]), "weight": drawn(generator, channels).float()}
    inputs |= {"bias": drawn(generator, channels).float(), "scale": scale, "shift": shift}
    inputs |= dict.fromkeys(case["left_out"])
    return inputs, drawn(generator, *shape).to(case["dtype"])


def results(
    op: Callable[..., torch.Tensor], backend: str, inputs: Inputs, gradient: torch.Tensor
) -> list[Any]:
    """The output and the gradient of every input, on one backend ("exact": the reference in float64)."""
    leaves = {}
    for name, value in inputs.items():
        if value is not None:
            wide = value.double() if backend == "exact" else value
            leaves[name] = wide.detach().requires_grad_()
    with use_backend("torch" if backend == "exact" else backend):
        out = op(**{name: leaves.get(name) for name in inputs})
    out.backward(gradient.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves.values())]
