"""Image of seed 17 is image 17: whatever the batch, its order, the memory format and the processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastdiff import nn as fnn
from fastdiff import rng
from fastdiff.model import Model, save
from fastdiff.rng import Stream
from fastdiff.sampling import sample, sample_batches
from fastdiff.schedule import Schedule

STEPS = 4


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    net = fnn.UNet(in_channels=3, channels=8, channel_mults=(1, 2), blocks=1, groups=4, num_classes=4)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return Model(net, Schedule.cosine(100), "v", (3, 16, 16), num_classes=4)


def drawn(model: Model, seeds: Any, **options: Any) -> torch.Tensor:
    seeds = list(seeds)
    options = {"solver": "ddpm", "guidance": 2.0, "labels": [s % 4 for s in seeds], **options}
    return sample(model, STEPS, seeds=seeds, **options)


@pytest.mark.parametrize("batch_invariant", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_seed_17(model: Model, channels_last: bool, batch_invariant: bool) -> None:
    alone = drawn(model, [17], batch_invariant=batch_invariant)
    order = [*range(64)][::-1]
    model.net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    try:
        batch = drawn(model, order, batch_invariant=batch_invariant)
    finally:
        model.net.to(memory_format=torch.contiguous_format)
    bound = 1e-5 if batch_invariant else 1e-3
    torch.testing.assert_close(batch[order.index(17)], alone[0], rtol=0, atol=bound)
    assert (batch[0] - alone[0]).abs().max() > 0.1


def test_batch_invariant_is_bitwise_on_the_cpu(model: Model) -> None:
    alone, batch = (drawn(model, seeds, batch_invariant=True) for seeds in ([17], range(10, 20)))
    assert torch.equal(batch[7], alone[0])


def test_noise_is_bitwise_equal_alone_in_a_batch_and_in_any_order() -> None:
    for stream in Stream:
        alone = rng.normal([17], (3, 16, 16), row=5, stream=stream)
        batch = rng.normal(range(64), (3, 16, 16), row=5, stream=stream)
        mixed = rng.normal([3, 99, 17], (3, 16, 16), row=5, stream=stream)
        assert torch.equal(alone[0], batch[17])
        assert torch.equal(alone[0], mixed[2])


_SHARD = """
import sys, numpy as np, torch, fastdiff
from fastdiff.rng import normal
options = {"solver": "ddpm", "guidance": 2.0, "batch_invariant": True, "labels": [s % 4 for s in range(10, 21)]}
parts = list(fastdiff.sample_batches(sys.argv[1], int(sys.argv[2]), seeds=range(10, 21), batch_size=3, **options))
seeds = [s for part, _ in parts for s in part]
np.savez(sys.argv[3], seeds=seeds, images=torch.cat([i for _, i in parts]), noise=normal(seeds, (3, 16, 16)))
"""


def test_two_processes_share_the_seeds(model: Model, tmp_path) -> None:
    save(model, tmp_path / "m")
    results = []
    for rank in range(2):
        out = tmp_path / f"{rank}.npz"
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        subprocess.run(
            [sys.executable, "-c", _SHARD, str(tmp_path / "m"), str(STEPS), str(out)], env=env, check=True
        )
        results.append(np.load(out))
    seeds = [s for r in results for s in r["seeds"].tolist()]
    assert seeds == list(range(10, 21))
    assert [len(r["seeds"]) for r in results] == [6, 5]
    whole = drawn(model, range(10, 21), batch_invariant=True)
    np.testing.assert_allclose(np.concatenate([r["images"] for r in results]), whole, rtol=0, atol=1e-5)
    noise = np.concatenate([r["noise"] for r in results])
    assert np.array_equal(noise, rng.normal(range(10, 21), (3, 16, 16)))


def test_batches_are_the_samples_of_one_call(model: Model) -> None:
    options = {"solver": "ddpm", "labels": [0, 1, 2], "guidance": 1.5}
    options["batch_invariant"] = True
    whole = sample(model, STEPS, num=7, seed=5, **options)
    parts = list(sample_batches(model, STEPS, num=7, seed=5, batch_size=3, **options))
    assert [seeds for seeds, _ in parts] == [[5, 6, 7], [8, 9, 10], [11]]
    torch.testing.assert_close(torch.cat([images for _, images in parts]), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num", "world"), [(10, 3), (2, 4), (50_000, 7), (1, 1)])
def test_shards_are_exact(num: int, world: int) -> None:
    network = {"schedule": Schedule.linear(10), "prediction": "x0", "shape": (1,)}
    sizes, seeds = [], []
    for rank in range(world):
        options = {"batch_size": 4096, "rank": rank, "world_size": world, **network}
        mine = [s for part, _ in sample_batches(lambda x, t: 0 * x, 1, num=num, **options) for s in part]
        sizes.append(len(mine))
        seeds += mine
    assert seeds == list(range(num))
    assert sizes == [len(part) for part in np.array_split(np.arange(num), world)]


def test_images_are_drawn_lazily_and_arguments_checked_at_once(model: Model) -> None:
    calls = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return 0 * x

    options = {"schedule": Schedule.linear(10), "prediction": "x0", "shape": (1,)}
    batches = sample_batches(network, 2, num=5, batch_size=2, **options)
    assert calls == []
    next(batches)
    assert calls == [2, 2]
    with pytest.raises(ValueError, match="steps must be in"):
        sample_batches(model, 1000)
    for changes, message in [
        ({"batch_size": 0}, "batch_size must be"),
        ({"rank": 2, "world_size": 2}, "rank must be in"),
        ({"noise": torch.zeros(1)}, "noise as a tensor must be left out"),
        ({"callback": print}, "callback must be left out"),
        ({"trajectory": True}, "trajectory must be left out"),
        ({"order": 3}, "order must be an option"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample_batches(network, 2, num=4, **options, **changes)
