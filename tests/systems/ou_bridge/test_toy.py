"""The toy: its data, its codes, and the divergence that judges it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff.systems.ou_bridge.toy import (
    ToyModel,
    ToyNet,
    circle,
    circle_sequences,
    sequence_kl,
    unit_gains,
)


def toy(net: Any = None) -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(net or ToyNet(torch.ones(100), width=8), torch.full((100,), 0.015), 100)


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


def possible() -> Tensor:
    """(128, 10) the points of all possible sequences, without noise."""
    turns = torch.tensor(list(itertools.product((1, -1), repeat=4)))
    codes = torch.cat((torch.zeros(16, 1, dtype=torch.int64), turns.cumsum(1)), 1)
    whole = (torch.arange(8)[:, None, None] + codes).reshape(-1, 5) % 8
    return circle(8)[whole].transpose(1, 2).flatten(1).double()


def test_the_exact_network_draws_the_law_of_the_sequences() -> None:
    """The data are a mixture of 128 Gaussians, whose noise is known in closed form; so is the divergence it leads to.

    The process ends with a signal as strong as its noise, and its first state is drawn without any signal: that
    alone costs 0.0024 nats (the bias of 20,000 draws, 0.0032, comes on top).
    """
    process, centres = toy().process, possible()

    def noise(x: Tensor, t: Tensor) -> Tensor:
        signal, spread = float(process.signal[int(t[0])]), float(process.spread[int(t[0])])
        variance = (0.05 * signal) ** 2 + spread**2
        flat = x.double().flatten(1)
        weight = (-(torch.cdist(flat, signal * centres) ** 2) / (2 * variance)).softmax(1)
        return (spread * (flat - signal * weight @ centres) / variance).reshape(x.shape).to(x.dtype)

    model = toy(noise)
    codes = model.discretise(fastdiff.sample(model, 100, num=20_000, shape=(2, 5), solver="ddpm"))
    assert 0.0032 < sequence_kl(codes) < 0.009
    data = circle_sequences(20_000, generator=torch.Generator().manual_seed(0))
    assert sequence_kl(model.discretise(data)) < 0.0055


@pytest.mark.slow
def test_a_trained_network_reaches_twice_the_published_divergence() -> None:
    """Published: 0.0095. Here the law of whole sequences is judged, by 20,000 draws."""
    torch.manual_seed(0)
    model = toy(ToyNet(unit_gains(toy().process)))
    steps = 5000
    optimizer = torch.optim.Adam(model.denoising_model.parameters(), betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.05)
    for _ in range(steps):
        loss = model.compute_loss(circle_sequences(256))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    codes = model.discretise(fastdiff.sample(model, 100, num=20_000, shape=(2, 5), solver="ddpm"))
    found = sequence_kl(codes)
    print(f"divergence of the trained toy: {found:.4f}")
    assert found < 2 * 0.0095
