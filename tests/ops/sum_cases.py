"""What the tests of sums around a normalisation share: terms in every layout and type, and one run on one backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fastdiff.ops import use_backend

from .conftest import assert_as_exact_as_torch
from .norm_cases import HALVES, LAYOUTS, drawn, laid_out

sum_cases = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "batch": st.integers(0, 2),
        "groups": st.sampled_from([1, 2, 3, 4]),
        "width": st.integers(1, 9),
        "sizes": st.lists(st.integers(1, 9), min_size=0, max_size=3),
        "layouts": st.lists(st.sampled_from(LAYOUTS), min_size=3, max_size=3),
        "dtype": st.sampled_from([torch.float32, *HALVES]),
        "term": st.sampled_from([torch.float32, *HALVES]),
        "factor": st.sampled_from([torch.float32, *HALVES]),
        "rows": st.lists(st.sampled_from(["", "channel", "sample"]), min_size=2, max_size=2),
        "residual": st.booleans(),
        "joined": st.integers(0, 5),
        "after": st.booleans(),
        "with_sum": st.booleans(),
        "last": st.booleans(),
        "activate": st.booleans(),
        "left_out": st.sets(st.sampled_from(["weight", "bias", "scale", "shift"])),
    }
)
USUAL_SUM = {
    **{"seed": 0, "batch": 1, "groups": 4, "width": 3, "sizes": [5, 7], "layouts": ["contiguous"] * 3},
    **{"dtype": torch.float32, "term": torch.float32, "factor": torch.float32, "rows": ["channel", "sample"]},
    **{"residual": True, "joined": 0, "after": False, "with_sum": True, "last": False, "activate": True},
    "left_out": set(),
}


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a normalisation with sums; those that a case may not have together are left out."""
    generator = np.random.default_rng(case["seed"])
    batch, channels, sizes = case["batch"], case["groups"] * case["width"], case["sizes"]
    behind = 0 if case["after"] else min(case["joined"], channels - 1)
    first = channels - behind

    def a_map(width: int, dtype: torch.dtype, layout: str) -> torch.Tensor:
        return laid_out(drawn(generator, batch, width, *sizes).to(dtype), layout)

    def rows(kind: str) -> torch.Tensor | None:
        shape = {"": None, "channel": (first,), "sample": (batch, first)}[kind]
        return None if shape is None else drawn(generator, *shape).to(case["term"])

    given: dict[str, Any] = {
        "x": a_map(first, case["dtype"], case["layouts"][0]),
        "add": rows(case["rows"][0]),
    }
    given["residual"] = a_map(first, case["term"], case["layouts"][1]) if case["residual"] else None
    given["residual_add"] = rows(case["rows"][1]) if case["residual"] else None
    given["x2"] = a_map(behind, case["dtype"], case["layouts"][2]) if behind else None
    scale, shift = drawn(generator, batch, 2 * channels).chunk(2, dim=1)
    factors = {"weight": drawn(generator, channels), "bias": drawn(generator, channels)}
    factors |= {"scale": scale, "shift": shift}
    given |= {
        name: None if name in case["left_out"] else value.to(case["factor"])
        for name, value in factors.items()
    }
    given |= {"after": case["after"] and case["residual"], "last": case["last"], "activate": case["activate"]}
    before = (given["add"], given["x2"], None if given["after"] else given["residual"])
    given["with_sum"] = case["with_sum"] and any(term is not None for term in before)
    return given


def outcome(op: Callable[..., Any], backend: str, given: dict[str, Any]) -> list[torch.Tensor]:
    """The results on one backend ("exact": the reference in float64)."""
    if backend == "exact":
        given = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    with use_backend("torch" if backend == "exact" else backend):
        out = op(**given)
    return list(out) if isinstance(out, tuple) else [out]


def compare_sums(op: Callable[..., Any], case: dict[str, Any]) -> None:
    """Triton against the reference in float64; same shapes and types, channels last if asked."""
    given = arguments(case)
    ours, plain, exact = (outcome(op, backend, given) for backend in ("triton", "torch", "exact"))
    assert len(ours) == len(plain) == 1 + given["with_sum"]
    for one, two, three in zip(ours, plain, exact, strict=True):
        assert one.shape == two.shape and one.dtype == two.dtype
        if one.numel():
            assert_as_exact_as_torch(one, two, three)
    if given["last"] and ours[0].dim() == 4:
        assert ours[0].is_contiguous(memory_format=torch.channels_last)
