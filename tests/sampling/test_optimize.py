"""Optimised steps: the dynamic programme, what it gains, and where its results are kept."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastdiff import nn as fnn
from fastdiff.model import Model, load, save
from fastdiff.sampling import optimized_times, sample
from fastdiff.sampling.optimize import FILE
from fastdiff.schedule import Schedule
from fastdiff.solvers import optimize_steps, timesteps_of
from fastdiff.solvers.closed_form import MixtureNetwork
from fastdiff.solvers.optimized import cheapest_path, euler_errors

SCHEDULE = Schedule.cosine(100)


def test_cheapest_path_is_the_best_of_all() -> None:
    costs = np.triu(np.random.default_rng(0).uniform(1, 9, (8, 8)), 1)
    costs[costs == 0] = np.inf
    for edges in range(1, 8):
        paths = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), edges - 1)]
        best = min(paths, key=lambda path: sum(costs[a, b] for a, b in itertools.pairwise(path)))
        assert cheapest_path(costs, edges) == list(best)
    with pytest.raises(ValueError, match="a path of 8 edges must exist"):
        cheapest_path(costs, 8)


def test_errors_are_those_of_euler_steps() -> None:
    """A straight path in sigma / alpha costs nothing; neighbours are exact by construction."""
    times = np.array([90.0, 60.0, 30.0, 5.0])
    levels = np.append(times, -1.0)
    ratio = SCHEDULE.sigma(levels) / SCHEDULE.alpha(levels)
    straight = SCHEDULE.alpha(levels)[:, None] * (0.3 + 0.7 * ratio[:, None])
    upper = np.triu_indices(5, 1)
    assert np.abs(euler_errors(SCHEDULE, times, straight)[upper]).max() < 1e-12
    bent = SCHEDULE.alpha(levels)[:, None] * np.sqrt(0.25 + ratio[:, None] ** 2)
    errors = euler_errors(SCHEDULE, times, bent)
    assert all(errors[i, i + 1] < 1e-12 for i in range(4))
    assert all(errors[0, j] < errors[0, j + 1] for j in range(1, 3))


@pytest.mark.parametrize("solver", ["ddim", "ipndm", "dpmpp_2m"])
def test_optimised_steps_follow_a_mixture_better(solver: str) -> None:
    network = MixtureNetwork(SCHEDULE, "eps", [-0.4, 0.4], [0.25, 0.25])
    options = {"shape": (64,), "num": 8, "clip": None, "dtype": torch.float64}
    times = timesteps_of(SCHEDULE, 100).tolist()
    states = sample(network, times, seed=900, trajectory=True, **options)
    chosen = optimize_steps(SCHEDULE, times, states.numpy(), 6)
    assert len(chosen) == 6
    assert chosen[0] == 99
    exact = sample(network, 100, solver="heun", **options)
    plain, tuned = (
        float((sample(network, steps, solver=solver, **options) - exact).pow(2).mean().sqrt())
        for steps in (6, chosen)
    )
    assert tuned < 0.8 * plain


def model() -> Model:
    torch.manual_seed(2)
    net = fnn.UNet(in_channels=1, channels=8, channel_mults=(1,), blocks=1, groups=4, num_classes=3)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return Model(net, SCHEDULE, "v", (1, 4, 4), num_classes=3)


def test_kept_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = save(model(), tmp_path / "m")
    images = sample(folder, 4, spacing="optimized", num=2)
    (entry,) = json.loads((folder / FILE).read_text()).values()
    assert entry["steps"] == 4
    assert torch.equal(images, sample(folder, entry["times"], num=2))
    (folder / FILE).unlink()
    assert optimized_times(load(folder), 4) == entry["times"]
    assert list(_kept(folder).values()) == [entry]
    entries = {key: {**value, "times": [99.0, 50.0, 20.0, 3.0]} for key, value in _kept(folder).items()}
    (folder / FILE).write_text(json.dumps(entries))
    assert optimized_times(folder, 4) == [99.0, 50.0, 20.0, 3.0]
    assert optimized_times(folder, 4, cache=False) == entry["times"]
    assert optimized_times(folder, 4, num=4) != [99.0, 50.0, 20.0, 3.0]
    (folder / FILE).write_text("{ damaged")
    assert optimized_times(folder, 4) == entry["times"]
    other = model()
    with torch.no_grad():
        other.net.stem.weight.mul_(2)
    save(other, folder)
    (folder / FILE).write_text(json.dumps(entries))
    assert optimized_times(folder, 4) != [99.0, 50.0, 20.0, 3.0]


def _kept(folder: Path) -> dict:
    return json.loads((folder / FILE).read_text())


def test_a_folder_that_cannot_be_written_falls_back_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = save(model(), tmp_path / "m")
    (folder / FILE).mkdir()
    times = optimized_times(folder, 3)
    assert list(_kept(tmp_path / "cache" / "fastdiff").values())[0]["times"] == times
    loaded = optimized_times(model(), 3)
    assert loaded == times


def test_networks_without_weights_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = MixtureNetwork(SCHEDULE, "v", [0.2], [0.3])
    assert sample(network, 3, spacing="optimized", shape=(2,), num=2).shape == (2, 2)
    assert list(tmp_path.iterdir()) == []


def test_refused() -> None:
    network = MixtureNetwork(SCHEDULE, "v", [0.2], [0.3])
    with pytest.raises(TypeError, match="steps must be an integer with spacing='optimized'"):
        sample(network, [50, 3], spacing="optimized", shape=(2,))
    with pytest.raises(ValueError, match=r"steps must be in 1 \.\.\. 2"):
        optimize_steps(SCHEDULE, [90, 10], np.zeros((3, 1)), 3)
    with pytest.raises(ValueError, match="states must be 3"):
        optimize_steps(SCHEDULE, [90, 10], np.zeros((2, 1)), 1)
    with pytest.raises(ValueError, match="times must have alpha > 0"):
        zero = SCHEDULE.rescale_zero_terminal_snr()
        optimize_steps(zero, [99, 10], np.zeros((3, 1)), 1)
