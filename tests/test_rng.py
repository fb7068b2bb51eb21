"""Seed lists, and noise that depends on the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff import rng
from fastdiff.rng import Stream


def test_parse_seeds() -> None:
    assert rng.parse_seeds("0-3,7") == [0, 1, 2, 3, 7]
    assert rng.parse_seeds(" 5 , 1-1") == [5, 1]


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-1", "1-", "18446744073709551616", "1.5"])
def test_parse_seeds_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="parse_seeds|seeds"):
        rng.parse_seeds(text)


def test_seed_tensor_keeps_all_64_bits() -> None:
    assert rng.seed_tensor(3, 3).tolist() == [3, 4, 5]
    wrapped = rng.seed_tensor(num=2, seeds=[2**64 - 1, 2**63])
    assert wrapped.tolist() == [-1, -(2**63)]
    assert list(rng.seed_list(0, 2, wrapped)) == [2**64 - 1, 2**63]
    assert rng.seed_tensor(num=2, seeds=[7, 7]).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": -1, "num": 1}, ValueError),
        ({"seed": 2**64 - 1, "num": 2}, ValueError),
        ({"seed": 0, "num": 0}, ValueError),
        ({"num": 3, "seeds": [1, 2]}, ValueError),
        ({"num": 0, "seeds": []}, ValueError),
        ({"num": 1, "seeds": [2**64]}, ValueError),
        ({"num": 1, "seeds": [1.5]}, TypeError),
        ({"seed": True, "num": 1}, TypeError),
    ],
)
def test_seed_tensor_refuses(arguments: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed"):
        rng.seed_tensor(**arguments)


def test_a_long_range_of_seeds_is_not_walked_through() -> None:
    assert len(rng.seed_list(5, 10**15)) == 10**15
    with pytest.raises(ValueError, match="seeds must be in"):
        rng.seed_list(2**64 - 10**15, 10**15 + 1)


def test_noise_of_a_seed_does_not_depend_on_the_batch() -> None:
    alone = rng.normal([17], (3, 5, 7))
    batch = rng.normal(range(64), (3, 5, 7))
    shuffled = rng.normal([40, 17, 3], (3, 5, 7))
    assert torch.equal(alone[0], batch[17])
    assert torch.equal(alone[0], shuffled[1])


@pytest.mark.parametrize("draw", [rng.normal, rng.uniform])
def test_streams_and_rows_differ(draw) -> None:
    base = draw([1], (1000,), row=0, stream=Stream.INITIAL)
    for other in (
        draw([1], (1000,), row=1, stream=Stream.INITIAL),
        draw([1], (1000,), row=0, stream=Stream.SOLVER),
        draw([2], (1000,), row=0, stream=Stream.INITIAL),
        draw([1 + 2**32], (1000,), row=0, stream=Stream.INITIAL),
    ):
        correlation = np.corrcoef(base.numpy().ravel(), other.numpy().ravel())[0, 1]
        assert abs(correlation) < 0.15  # 4.7 standard deviations


def test_moments() -> None:
    noise = rng.normal(range(1000), (1000,), dtype=torch.float64)
    n = noise.numel()
    assert abs(noise.mean()) < 5 / n**0.5
    assert abs(noise.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 5 * (96 / n) ** 0.5
    numbers = rng.uniform(range(1000), (1000,), dtype=torch.float64)
    assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert numbers.min() > 0
    assert numbers.max() < 1


def test_a_row_per_sample() -> None:
    both = rng.normal([4, 4], (8,), row=torch.tensor([2, 9]))
    assert torch.equal(both[0], rng.normal([4], (8,), row=2)[0])
    assert torch.equal(both[1], rng.normal([4], (8,), row=9)[0])
