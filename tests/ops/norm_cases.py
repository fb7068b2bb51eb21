"""What the tests of the normalisations share: maps that are hard to normalise, and one run on one backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fastdiff.ops import rms_norm_silu, use_backend

from .conftest import assert_as_exact_as_torch

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


USUAL = {
    **{"seed": 0, "batch": 2, "groups": 32, "width": 4, "sizes": [16, 16], "values": "usual"},
    **{"layout": "channels_last", "dtype": torch.float32, "left_out": set(), "activate": True},
}


def rms(*, bias: torch.Tensor | None = None, **inputs: Any) -> torch.Tensor:
    """`rms_norm_silu` with the inputs of a group norm, without the bias, which it does not have."""
    return rms_norm_silu(**inputs)


def assert_gradient(ours, plain, exact):
    """error <= 3 x torch's own + 2 ulp of the largest value; of few numbers 64 ulp, where torch may be lucky."""
    floor = (2 if exact.numel() >= 64 else 64) * torch.finfo(plain.dtype).eps
    allowed = 3 * (plain.double() - exact).abs().max() + floor * exact.abs().max()
    error = (ours.double() - exact).abs().max()
    assert error <= allowed, f"gradient: error {error:.3e}, allowed {allowed:.3e}"


def compare(backend: str, op: Callable[..., torch.Tensor], case: dict[str, Any], together: int) -> None:
    """`together`: how many numbers share a norm; of too few the gradient of x is what is left of a cancellation."""
    inputs, gradient = make(case)
    ours, plain, exact = (results(op, name, inputs, gradient) for name in (backend, "torch", "exact"))
    x = inputs["x"]
    assert x is not None and ours[0].dtype == x.dtype and ours[0].shape == x.shape
    if not x.numel():
        return
    assert_as_exact_as_torch(ours[0], plain[0], exact[0])
    if together < 8:
        return
    for one, two, three in zip(ours[1:], plain[1:], exact[1:], strict=True):
        if three is not None:
            assert one.shape == two.shape and one.dtype == two.dtype
            assert_gradient(one, two, three)
