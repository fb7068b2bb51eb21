"""Trajectories equal to diffusers' schedulers on the same network and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers.closed_form import MixtureNetwork

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: its schedulers cannot be compared"
)

SCHEDULE = Schedule.scaled_linear(1000)
BASE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (3, 4, 5)


def initial() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))


def theirs(scheduler: Any, network: MixtureNetwork, steps: int, **options: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    x = initial() * scheduler.init_noise_sigma
    states = [x]
    for t in scheduler.timesteps:
        m = network(scheduler.scale_model_input(x, t), t.repeat(2))
        x = scheduler.step(m, t, x, **options).prev_sample
        states.append(x)
    return torch.stack(states)


def ours(network: MixtureNetwork, steps: int, solver: str, **options: Any) -> Tensor:
    given = {"shape": SHAPE, "num": 2, "x_init": initial(), "trajectory": True, **options}
    return sample(network, steps, solver=solver, **given)


def network(prediction: str) -> MixtureNetwork:
    return MixtureNetwork(SCHEDULE, prediction, (-0.8, 0.5), (0.2, 0.4))


def assert_equal(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    for a, b in zip(got, expected):
        assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim(steps: int, prediction: str, spacing: str) -> None:
    scheduler = diffusers.DDIMScheduler(**BASE, prediction_type=NAMES[prediction], timestep_spacing=spacing)
    expected = theirs(scheduler, network(prediction), steps, use_clipped_model_output=True)
    times = scheduler.timesteps.tolist()
    assert_equal(ours(network(prediction), times, "ddim"), expected)
    if steps > 1:
        assert_equal(ours(network(prediction), steps, "ddim", spacing=spacing), expected)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("prediction", NAMES)
def test_ddpm(prediction: str, variance: str) -> None:
    """With leading spacing, whose last time is 0: from any other time diffusers adds noise to its final image."""
    names = {"prediction_type": NAMES[prediction], "variance_type": variance, "timestep_spacing": "leading"}
    scheduler = diffusers.DDPMScheduler(**BASE, **names)
    expected = theirs(scheduler, network(prediction), 50, generator=torch.Generator().manual_seed(5))
    noise = torch.Generator().manual_seed(5)
    got = ours(network(prediction), 50, "ddpm", variance=variance, noise=noise, spacing="leading")
    assert_equal(got, expected)


def test_ddpm_learned_range() -> None:
    class Learned:
        """Mean from the exact network, variance fraction from the state."""

        schedule, prediction = SCHEDULE, "eps"

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.cat((network("eps")(x, t), torch.tanh(x)), dim=1)

    scheduler = diffusers.DDPMScheduler(**BASE, variance_type="learned_range", timestep_spacing="leading")
    expected = theirs(scheduler, Learned(), 20, generator=torch.Generator().manual_seed(5))
    noise = torch.Generator().manual_seed(5)
    got = ours(Learned(), 20, "ddpm", variance="learned", noise=noise, spacing="leading")
    assert_equal(got, expected)
