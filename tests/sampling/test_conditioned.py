"""RePaint, temperature, shared noise and paths between inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.sampling import interpolate, sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, ddim, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork
from fastdiff.solvers.resampling import resampled

SCHEDULE = Schedule.cosine(60)
NETWORK = MixtureNetwork(SCHEDULE, "eps", [0.2], [0.3])
BASE = {"shape": (1, 4, 4), "clip": None}


def test_rows_of_a_resampled_table() -> None:
    table = resampled(ddpm(SCHEDULE, "eps", 5), 2, 3)
    times = [59, 47, 35, 23, 11]
    told = [t for a, b in ((0, 2), (2, 4), (4, 5)) for _ in range(3) for t in times[a:b]]
    assert table["t"][table["eval"] == 1].tolist() == told
    assert table["eval"].tolist()[:8] == [1, 1, 0, 1, 1, 0, 1, 1]
    assert table.evaluations == 15
    assert table["noise_row"].tolist() == list(range(len(table)))
    assert (table["i_y"][-1], table["i_s"][-1]) == (1.0, 0.0)


def test_a_jump_back_is_the_forward_process() -> None:
    """From the level it leaves to the level it reaches, mean and variance are those of q."""
    table = resampled(ddim(SCHEDULE, "eps", 6), 3, 2)
    jumps = np.flatnonzero(table["eval"] == 0)
    alpha, sigma = table.levels
    for k in jumps:
        assert table["b"][k] * alpha[k] == pytest.approx(table["i_y"][k])
        assert (table["b"][k] * sigma[k]) ** 2 + table["s"][k] ** 2 == pytest.approx(table["i_s"][k] ** 2)
        assert table["i_s"][k] > sigma[k]
    assert len(jumps) == 2


def _disagreement(images: Tensor) -> float:
    """How far the drawn pixels are from the known one."""
    return float((images.mean((-1, -2)) - images[..., 0, 0]).abs().mean())


class Flat:
    """The exact network of flat images, all pixels one value ~ N(0, 0.5^2): what is drawn must agree with the rest."""

    schedule, prediction = SCHEDULE, "x0"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (
            torch.from_numpy(f(t.numpy())).to(x).reshape(-1, 1, 1, 1)
            for f in (SCHEDULE.alpha, SCHEDULE.sigma)
        )
        mean = x.mean((1, 2, 3), keepdim=True)
        gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2 / x[0].numel())
        return (gain * mean).expand_as(x)


def test_resampling_brings_known_and_drawn_together() -> None:
    known = torch.linspace(-0.6, 0.6, 64).reshape(-1, 1, 1, 1).expand(64, 1, 4, 4)
    mask = torch.zeros(4, 4)
    mask[0, 0] = 1
    options = {**BASE, "num": 64, "x_init": known, "mask": mask, "solver": "ddpm"}
    plain = sample(Flat(), 10, **options)
    again = sample(Flat(), 10, resample=(5, 10), **options)
    assert torch.equal(again[..., 0, 0], known[..., 0, 0])
    assert _disagreement(again) < 0.85 * _disagreement(plain)


def test_resampling_refused() -> None:
    image = {"x_init": torch.zeros(1, 4, 4), "mask": torch.zeros(4, 4)}
    for changes, message in [
        ({"resample": (2, 3)}, "resample must go with mask"),
        ({"resample": 3, **image}, r"resample must be \(jump, repeats\)"),
        ({"resample": (0, 3), **image}, "jump must be an integer >= 1"),
        ({"resample": (2, 1.5), **image}, "repeats must be an integer >= 1"),
        ({"resample": (2, 2), "solver": "dpmpp_2m", **image}, "one-step .* got dpmpp_2m"),
    ]:
        with pytest.raises(ValueError, match=message):
            sample(NETWORK, 4, **BASE, **changes)


def test_temperature_scales_every_noise() -> None:
    options = {**BASE, "num": 500, "solver": "ddpm"}
    plain, cold, none = (sample(NETWORK, 30, temperature=value, **options) for value in (1.0, 0.5, 0.0))
    assert float(none.std()) < 1e-4
    assert float(cold.std()) == pytest.approx(0.5 * float(plain.std()), rel=0.02)
    assert float(cold.mean()) == pytest.approx(0.2, abs=0.02)
    for bad in (-1.0, float("nan"), "hot", True):
        with pytest.raises(ValueError, match="temperature must be a finite number >= 0"):
            sample(NETWORK, 2, temperature=bad, **BASE)


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_shared_noise_is_that_of_the_first_seed(solver: str) -> None:
    options = {**BASE, "solver": solver}
    shared = sample(NETWORK, 5, num=4, seed=7, noise="shared", **options)
    assert all(torch.equal(image, shared[0]) for image in shared)
    torch.testing.assert_close(shared[:1], sample(NETWORK, 5, num=1, seed=7, **options))


def test_path_between_seeds() -> None:
    path = interpolate(NETWORK, 3, 9, 6, num=5, **BASE)
    ends = sample(NETWORK, 6, seeds=[3, 9], **BASE)
    torch.testing.assert_close(path[[0, -1]], ends, rtol=0, atol=1e-6)
    steps = [float((b - a).abs().mean()) for a, b in zip(path, path[1:])]
    assert max(steps) < 0.6 * float((ends[0] - ends[1]).abs().mean())
    assert float(path[2].std()) > 0.5 * float(ends.std())


def test_path_between_images() -> None:
    first, second = torch.full((1, 4, 4), -0.2), torch.full((1, 4, 4), 0.6)
    path = interpolate(NETWORK, first, second, 10, num=3, start=9, **BASE)
    blends = torch.tensor([-0.2, 0.2, 0.6])
    torch.testing.assert_close(path.mean((1, 2, 3)), blends, rtol=0, atol=0.15)
    whole = interpolate(NETWORK, first, second, 10, num=3, start=0, **BASE)
    assert float((whole[0] - whole[2]).abs().max()) < 1e-2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, torch.zeros(1, 4, 4)), "two images, or two seeds"),
        ((1.5, 2), "two images, or two seeds"),
        ((torch.zeros(1, 4, 4), torch.zeros(1, 2, 2)), "one shape"),
    ],
)
def test_interpolate_refused(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        interpolate(NETWORK, *arguments, 4, **BASE)
    with pytest.raises(ValueError, match="num must be >= 2"):
        interpolate(NETWORK, 1, 2, num=1, **BASE)


def test_one_step_solvers_can_all_be_resampled() -> None:
    """Every solver either takes passes or is refused in words."""
    taken = []
    for name, solver in SOLVERS.items():
        try:
            taken.append((name, resampled(solver(SCHEDULE, "v", 6), 2, 2)))
        except ValueError as error:
            assert "must" in str(error)
    assert {"ddpm", "ddim", "euler", "euler_ancestral"} <= {name for name, _ in taken}
