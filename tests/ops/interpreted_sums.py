"""Run by test_triton.py in a process of its own: normalisations of sums in triton's interpreter on the CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import example, given, settings

from fastdiff.ops import group_norm_silu, rms_norm_silu, use_backend

from .norm_cases import HALVES
from .sum_cases import USUAL_SUM as USUAL
from .sum_cases import arguments, compare_sums, sum_cases

SPLIT = {"groups": 2, "width": 6, "sizes": [61, 50]}  # more than a slab holds with sums
EXAMPLES = (
    USUAL,
    USUAL | {"layouts": ["channels_last", "contiguous", "contiguous"], "joined": 5},
    USUAL | {"layouts": ["contiguous", "channels_last", "channels_last"], "joined": 5, "last": True},
    USUAL | {"after": True, "dtype": torch.bfloat16, "factor": torch.bfloat16},
    USUAL | {"after": True, "with_sum": False, "rows": ["", "channel"]},
    USUAL | {"dtype": torch.float16, "term": torch.float16, "factor": torch.float16, "with_sum": False},
    USUAL | {"residual": False, "rows": ["", ""], "last": True, "with_sum": False},
    USUAL | {"sizes": [1, 1], "joined": 2},
)


def rms(*, bias: torch.Tensor | None = None, groups: int = 1, **given: object) -> object:
    return rms_norm_silu(**given)


def examples(test):
    for case in EXAMPLES:
        test = example(case=case)(test)
    return settings(max_examples=15, deadline=None)(given(case=sum_cases)(test))


@examples
def test_group_norm_of_sums_is_as_exact_as_torch(case):
    compare_sums(partial(group_norm_silu, groups=case["groups"]), case)


@examples
def test_rms_norm_of_sums_is_as_exact_as_torch(case):
    compare_sums(rms, case)


@pytest.mark.parametrize("order", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"groups": 4, "width": 4},
        {"with_sum": False, "joined": 5, "dtype": torch.bfloat16},
        {"after": True, "with_sum": False},
        {"after": True, "dtype": torch.float16},
        {"residual": False, "with_sum": False, "last": True},
    ],
    ids=str,
)
def test_two_launches_of_sums(more, order):
    """A map that does not fit into registers is measured, written as a sum where it is one, and applied."""
    case = USUAL | SPLIT | {"layouts": [order] * 3} | more
    compare_sums(partial(group_norm_silu, groups=case["groups"]), case)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_factors_are_cast_inside(dtype):
    """The same result as with float32 factors of the same values."""
    x = torch.randn(1, 12, 5, 5).to(dtype)
    weight, bias, rows = torch.randn(12).to(dtype), torch.randn(12).to(dtype), torch.randn(1, 24).to(dtype)
    scale, shift = rows.chunk(2, 1)
    with use_backend("triton"):
        ours = group_norm_silu(x, 4, weight, bias, scale=scale, shift=shift)
        wide = group_norm_silu(x, 4, weight.float(), bias.float(), scale=scale.float(), shift=shift.float())
        assert torch.equal(ours, wide)
        assert torch.equal(rms_norm_silu(x, weight), rms_norm_silu(x, weight.float()))


def test_gradients_are_those_of_the_parts():
    made = arguments(USUAL | {"joined": 4})
    leaves = {k: v.requires_grad_() if isinstance(v, torch.Tensor) else v for k, v in made.items()}
    tensors = [v for v in leaves.values() if isinstance(v, torch.Tensor)]
    found = {}
    for backend in ("triton", "torch"):
        with use_backend(backend):
            y, s = group_norm_silu(groups=4, **leaves)
        found[backend] = torch.autograd.grad(y.sum() + (s * s).sum(), tensors)
    for ours, plain in zip(found["triton"], found["torch"], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_opcheck():
    a = arguments(USUAL | {"joined": 4})
    s = torch.empty(1, 12, 5, 7)
    terms = (a["x"], a["add"], a["residual"], a["residual_add"], a["x2"])
    ops, factors = torch.ops.fastdiff, (a["weight"], a["bias"], a["scale"], a["shift"])
    first = (torch.empty_like(s), s, torch.empty(1, 4, 3), *terms, *factors, 4, 1e-5, True, False)
    torch.library.opcheck(ops.group_norm_silu_of_sum_triton.default, first)
    second = (torch.empty_like(s), None, *terms, *factors[:1], *factors[2:], 1e-5, True, False)
    torch.library.opcheck(ops.rms_norm_silu_of_sum_triton.default, second)
