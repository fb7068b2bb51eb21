"""The loss against its formula, the average, the learning rate, the optimizer."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastdiff import rng
from fastdiff.ops.philox import Stream
from fastdiff.schedule import Schedule
from fastdiff.training import Dataset, TrainConfig
from fastdiff.training.batches import Batches
from fastdiff.training.ema import EMA
from fastdiff.training.loss import DenoisingLoss
from fastdiff.training.optimizer import (
    learning_rate,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)

COSINE = Schedule.cosine(1000)
CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Returns a fixed fraction of its input and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, **extra: torch.Tensor) -> torch.Tensor:
        self.calls.append({"x": x, "t": t, **extra})
        return 0.3 * x


def weight_of(prediction: str, snr: np.ndarray, gamma: float) -> np.ndarray:
    capped = np.minimum(snr, gamma or np.inf)
    return {"eps": capped / snr, "x0": capped, "v": capped / (snr + 1)}[prediction]


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_loss_formula(
    shapes: Dataset, config: TrainConfig, prediction: Any, gamma: float, offset: float
) -> None:
    config = dataclasses.replace(config, prediction=prediction, min_snr_gamma=gamma, offset_noise=offset)
    batch, net = Batches(shapes, COSINE, config)(2), Recorder()
    found = DenoisingLoss(COSINE, config, CPU)(net, batch)
    alpha, sigma = COSINE.alpha(batch.t.numpy()), COSINE.sigma(batch.t.numpy())
    a, s = (torch.from_numpy(c)[:, None, None, None] for c in (alpha, sigma))
    eps = rng.normal(batch.seeds, (1, 8, 8), stream=Stream.FORWARD).double()
    eps = eps + offset * rng.normal(batch.seeds, (1, 1, 1), stream=Stream.OFFSET)
    x0 = batch.x0.double()
    x_t = a * x0 + s * eps
    wanted = {"eps": eps, "x0": x0, "v": a * eps - s * x0}[prediction]
    errors = (0.3 * x_t - wanted).square().mean((1, 2, 3))
    expected = (torch.from_numpy(weight_of(prediction, (alpha / sigma) ** 2, gamma)) * errors).mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(net.calls[0]["x"].double(), x_t, rtol=1e-4, atol=1e-5)
    assert torch.equal(net.calls[0]["labels"], batch.labels)


def test_uniform_weighting_is_the_plain_error(shapes: Dataset, config: TrainConfig) -> None:
    config = dataclasses.replace(config, weighting="uniform")
    batch, net = Batches(shapes, COSINE, config)(2), Recorder()
    found = DenoisingLoss(COSINE, config, CPU)(net, batch)
    alpha, sigma = (
        torch.from_numpy(f(batch.t.numpy()))[:, None, None, None] for f in (COSINE.alpha, COSINE.sigma)
    )
    eps = rng.normal(batch.seeds, (1, 8, 8), stream=Stream.FORWARD).double()
    x0 = batch.x0.double()
    expected = (0.3 * (alpha * x0 + sigma * eps) - (alpha * eps - sigma * x0)).square().mean()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_self_conditioning_feeds_the_clamped_estimate(shapes: Dataset, config: TrainConfig) -> None:
    batch, net = Batches(shapes, COSINE, config)(0), Recorder()
    batch.self_condition = True
    DenoisingLoss(COSINE, config, CPU)(net, batch)
    first, second = net.calls
    assert "x_self_cond" not in first
    alpha, sigma = (torch.from_numpy(f(batch.t.numpy())) for f in (COSINE.alpha, COSINE.sigma))
    x = first["x"].double()
    estimate = alpha[:, None, None, None] * x - sigma[:, None, None, None] * 0.3 * x
    torch.testing.assert_close(second["x_self_cond"].double(), estimate.clamp(-1, 1), atol=1e-5, rtol=1e-5)
    assert float(second["x_self_cond"].abs().max()) <= 1


def test_average_follows_its_formula() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema, expected = EMA(net, decay=0.15), copy.deepcopy(net).double()
    assert not any(p.requires_grad for p in ema.net.parameters())
    for n in range(5):
        for p in net.parameters():
            p.data.normal_()
        net[1].running_mean.normal_()
        decay = min(0.15, (1 + n) / (10 + n))
        assert ema.current_decay() == decay
        ema.update(net)
        for mine, theirs in zip(expected.parameters(), net.parameters()):
            mine.data.mul_(decay).add_(theirs.double(), alpha=1 - decay)
    for mine, theirs in zip(ema.net.parameters(), expected.parameters()):
        torch.testing.assert_close(mine.double(), theirs.data, atol=1e-6, rtol=1e-6)
    assert torch.equal(ema.net[1].running_mean, net[1].running_mean)


def test_learning_rate_warms_up_and_decays() -> None:
    config = TrainConfig(data="x", out="x", steps=110, warmup=10, lr=2.0)
    rates = [learning_rate(config, k) for k in range(111)]
    assert rates[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[35] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[110] == 0
    assert {learning_rate(dataclasses.replace(config, lr_schedule="constant"), k) for k in (10, 60, 109)} == {
        2.0
    }


def test_weight_decay_spares_biases_and_gains() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2))
    optimizer = make_optimizer(net, TrainConfig(data="x", out="x", weight_decay=0.5, lr=0.1))
    for p in net.parameters():
        p.data.fill_(1.0)
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert [round(float(p.data.flatten()[0].detach()), 6) for p in net.parameters()] == [0.95, 1.0, 1.0, 1.0]


def test_optimizer_state_is_put_back_in_the_format_of_its_parameters() -> None:
    def fresh() -> tuple[nn.Module, torch.optim.AdamW]:
        torch.manual_seed(0)
        net = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net, make_optimizer(net, TrainConfig(data="x", out="x", lr=0.1))

    def step(net: nn.Module, optimizer: torch.optim.AdamW) -> None:
        for p in net.parameters():
            p.grad = p.detach().cos()
        optimizer.step()

    net, optimizer = fresh()
    step(net, optimizer)
    other, again = fresh()
    tensors = {n: t.clone().contiguous() for n, t in optimizer_tensors(optimizer, net).items()}
    assert set(tensors) == {f"{p}/{k}" for p in ("weight", "bias") for k in ("step", "exp_avg", "exp_avg_sq")}
    load_optimizer_tensors(again, other, tensors)
    other.load_state_dict(net.state_dict())
    step(net, optimizer)
    step(other, again)
    assert torch.equal(net.weight, other.weight)
    weight = next(iter(other.parameters()))
    assert again.state[weight]["exp_avg"].stride() == weight.stride()
