"""The rule of accuracy, by hand."""

from __future__ import annotations

import torch

from fastdiff.doctor import judge

EXACT = torch.linspace(1, 2, 100, dtype=torch.float64)


PLAIN = EXACT.float()


def verdict(ours, plain=PLAIN, exact=EXACT, factor=2.0):
    (only,) = judge.compare(ours, plain, exact, factor)
    return only


def test_twice_the_error_of_torch_and_two_ulp():
    plain, eps = EXACT.float() + 1e-4, torch.finfo(torch.float32).eps
    assert verdict(EXACT.float() + 1.9e-4, plain).right
    assert not verdict(EXACT.float() + 2.2e-4, plain).right
    assert verdict(EXACT.float() + 2.9e-4, plain, factor=3.0).right
    assert verdict((EXACT + 1.5 * eps).float()).right and not verdict((EXACT + 12 * eps).float()).right


def test_of_few_numbers_torch_may_be_lucky():
    one, eps = torch.ones(3, dtype=torch.float64), torch.finfo(torch.float32).eps
    off = (one + 10 * eps).float()
    assert verdict(off, one.float(), one).right
    assert not verdict(off.repeat(30), one.float().repeat(30), one.repeat(30)).right


def test_what_is_no_number_must_be_none_in_both():
    plain = EXACT.float()
    ours = plain.clone()
    ours[3] = float("nan")
    assert not verdict(ours).right
    exact = EXACT.clone()
    exact[3] = float("nan")
    assert verdict(ours, ours, exact).right
    assert not verdict(plain, ours, exact).right, "a NaN is hidden"
    assert verdict(plain, ours, EXACT).right, "torch overflows where float64 does not"


def test_shape_dtype_and_names_count():
    assert not verdict(EXACT.float()[:50]).right and not verdict(EXACT.half()).right
    missing = judge.compare({"a": EXACT.float()}, {"b": EXACT.float()}, {"b": EXACT})
    assert not missing[0].right and "['a'], not ['b']" in missing[0].what


def test_whole_numbers_are_equal_or_wrong():
    assert verdict(torch.tensor([1, 2]), torch.tensor([1, 2]), torch.tensor([1, 2])).right
    assert verdict(torch.tensor([1, 3]), torch.tensor([1, 2]), torch.tensor([1, 2])).error == 1


def test_nothing_is_right():
    empty = torch.empty(0, dtype=torch.float64)
    assert verdict(empty.float(), empty.float(), empty).right
    assert judge.compare(None, None, None) == []
