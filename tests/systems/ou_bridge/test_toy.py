"""The toy: its data, its codes, and the divergence that judges it."""

from __future__ import annotations

import math

import pytest
import torch

import fastdiff
from fastdiff.systems.ou_bridge.toy import ToyModel, ToyNet, circle_sequences, sequence_kl


def toy() -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(ToyNet(torch.ones(100), width=8), torch.full((100,), 0.015), 100)


def test_codes_of_the_data_are_neighbours() -> None:
    data = circle_sequences(500, generator=torch.Generator().manual_seed(0))
    steps = (toy().discretise(data).diff(dim=1)) % 8
    assert ((steps == 1) | (steps == 7)).all() and (steps == 1).float().mean() == pytest.approx(0.5, abs=0.05)
    assert float(data.norm(dim=1).std()) == pytest.approx(0.05, abs=0.005)


def test_the_divergence_is_that_of_its_definition() -> None:
    """Three codes, two positions: six equally likely sequences, drawn with known frequencies."""
    drawn = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 0], [2, 0], [2, 1], [2, 1], [0, 0]])
    share = torch.tensor([1, 1, 1, 1, 1, 2]) / 8
    assert sequence_kl(drawn, 3) == pytest.approx(float((1 / 6 * (1 / 6 / share).log()).sum()))
    assert sequence_kl(drawn[:3], 3) == math.inf


def test_it_is_drawn_from_like_any_bridge() -> None:
    x = fastdiff.sample(toy(), 4, num=3, shape=(2, 5))
    assert toy().discretise(x).shape == (3, 5)
