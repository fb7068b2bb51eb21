"""Batches: what a step sees follows from counters alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fastdiff.schedule import Schedule
from fastdiff.training import Dataset, TrainConfig
from fastdiff.training.batches import Batch, Batches, epoch_order

COSINE = Schedule.cosine(1000)


def made(data: Dataset, config: TrainConfig, rank: int = 0, world: int = 1, **options: Any) -> Batches:
    return Batches(data, COSINE, dataclasses.replace(config, **options), rank, world)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("x0", "t", "seeds", "labels"))


def test_a_step_can_be_made_again_in_any_order(shapes: Dataset, config: TrainConfig) -> None:
    batches = made(shapes, config)
    forward = [batches(k) for k in range(20)]
    assert all(same(forward[k], batches(k)) for k in reversed(range(20)))
    assert not same(forward[0], forward[1])


def test_an_epoch_sees_every_image_once(shapes: Dataset, config: TrainConfig) -> None:
    numbered = Dataset(torch.arange(60, dtype=torch.uint8)[:, None, None, None], None, (), "numbers")
    batches = made(numbered, config, batch_size=7)
    seen = torch.cat([batches(k).x0.flatten() for k in range(18)]).add(1).mul(127.5).round().int()
    assert sorted(seen[:60].tolist()) == list(range(60))
    assert sorted(seen[60:120].tolist()) == list(range(60))
    assert seen[:60].tolist() != seen[60:120].tolist()
    assert seen[:60].tolist() == epoch_order(0, 0, 60).tolist()


@pytest.mark.parametrize("time_draws", ["independent", "stratified"])
def test_parts_of_ranks_make_up_the_batch(shapes: Dataset, config: TrainConfig, time_draws: str) -> None:
    options = {"time_draws": time_draws, "flip": True, "label_dropout": 0.5}
    whole = made(shapes, config, **options)(5)
    parts = [made(shapes, config, rank, 4, **options)(5) for rank in range(4)]
    for name in ("x0", "t", "seeds", "labels"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))
    with pytest.raises(ValueError, match="batch_size must be a multiple of 3 processes, got 8"):
        made(shapes, config, 0, 3)


def test_seeds_count_the_images_of_the_run(shapes: Dataset, config: TrainConfig) -> None:
    assert made(shapes, config, seed=100)(3).seeds.tolist() == list(range(124, 132))


@pytest.mark.parametrize("time_draws", ["independent", "stratified"])
def test_times_are_uniform(shapes: Dataset, config: TrainConfig, time_draws: str) -> None:
    batches = made(shapes, config, time_draws=time_draws)
    times = torch.cat([batches(k).t for k in range(500)])
    assert times.dtype == torch.int64
    assert 0 <= int(times.min()) < 5
    assert 994 < int(times.max()) <= 999
    counts = np.histogram(times.numpy(), 10, (0, 1000))[0]
    assert (abs(counts - 400) < 5 * 20).all()


def test_stratified_times_cover_every_step(shapes: Dataset, config: TrainConfig) -> None:
    for k in range(20):
        times = made(shapes, config)(k).t.sort().values
        gaps = (times - times.roll(1))[1:]
        assert (gaps - 125).abs().max() <= 1


def test_continuous_schedule_gets_float_times(shapes: Dataset, config: TrainConfig) -> None:
    schedule = Schedule.from_log_snr(lambda t: 10 - 20 * t)
    times = Batches(shapes, schedule, config)(0).t
    assert times.dtype == torch.float32
    assert ((times >= schedule.t_min) & (times <= schedule.t_max)).all()


def test_label_dropout_rate(shapes: Dataset, config: TrainConfig) -> None:
    batches = made(shapes, config, label_dropout=0.25)
    labels = torch.cat([batches(k).labels for k in range(250)])  # type: ignore[misc]
    assert abs(float((labels == 2).float().mean()) - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert set(torch.cat([made(shapes, config, label_dropout=0.0)(k).labels for k in range(9)]).tolist()) == {
        0,
        1,
    }


def test_flip_mirrors_half(shapes: Dataset, config: TrainConfig) -> None:
    plain, flipped = made(shapes, config), made(shapes, config, flip=True)
    count = 0
    for k in range(50):
        a, b = plain(k).x0, flipped(k).x0
        mirrored = (a.flip(-1) == b).flatten(1).all(1)
        assert (mirrored | (a == b).flatten(1).all(1)).all()
        count += int(mirrored.sum())
    assert 150 < count < 250


def test_images_are_scaled_to_plus_minus_one(shapes: Dataset, config: TrainConfig) -> None:
    data = Dataset(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1), None, (), "two")
    batch = made(data, config)(0)
    assert sorted(batch.x0.unique().tolist()) == [-1.0, 1.0]
    assert batch.labels is None


def test_self_conditioning_coin_is_the_same_on_all_ranks(shapes: Dataset, config: TrainConfig) -> None:
    network = dataclasses.replace(config.network, self_condition=True)
    coins = [
        [made(shapes, config, r, 2, network=network)(k).self_condition for k in range(200)] for r in (0, 1)
    ]
    assert coins[0] == coins[1]
    assert 65 < sum(coins[0]) < 135
    assert not made(shapes, config)(0).self_condition
