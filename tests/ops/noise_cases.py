"""What the tests of add_noise share: inputs at random, and the comparison with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fastdiff.ops import add_noise, use_backend

from .conftest import assert_as_exact_as_torch

Inputs = dict[str, Any]


def cases(largest: int, batch: int) -> st.SearchStrategy[dict[str, Any]]:
    """Calls with at most `batch` samples, no size of which is above `largest`."""
    return st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32 - 1),
            "sizes": st.lists(st.integers(1, largest), min_size=1, max_size=3),
            "batch": st.integers(0, batch),
            "dtype": st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
            "offset": st.sampled_from([0.0, 0.1]),
            "made": st.booleans(),  # the op makes the noise
        }
    )


def make(case: dict[str, Any]) -> Inputs:
    generator = np.random.default_rng(case["seed"])
    batch, shape = case["batch"], (case["batch"], *case["sizes"])
    x0 = torch.from_numpy(generator.normal(size=shape)).to(case["dtype"])
    if len(shape) == 4 and generator.random() < 0.5:
        x0 = x0.contiguous(memory_format=torch.channels_last)
    alpha, sigma = (torch.from_numpy(generator.random(batch)).float() for _ in range(2))
    seeds = torch.from_numpy(generator.integers(-(2**63), 2**63 - 1, size=batch))
    rows = torch.from_numpy(generator.integers(0, 2**32, size=batch))
    noise = None if case["made"] else torch.from_numpy(generator.normal(size=shape)).float()
    inputs = {"x0": x0, "alpha": alpha, "sigma": sigma, "noise": noise}
    return inputs | {"seeds": seeds, "row": rows, "offset": case["offset"]}


def compare(ours: Callable[..., Any], case: dict[str, Any]) -> None:
    """`ours` takes the inputs of `add_noise` and returns what it does with `return_noise`."""
    inputs = make(case)
    wide = {n: v.double() for n, v in inputs.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    with use_backend("torch"):
        plain = add_noise(**inputs, return_noise=True)
        exact = add_noise(**{**inputs, **wide}, return_noise=True)
    for one, two, three in zip(ours(**inputs), plain, exact, strict=True):
        assert one.dtype == torch.float32 and one.is_contiguous()
        if one.numel():
            assert_as_exact_as_torch(one, two, three)
