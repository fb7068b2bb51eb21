"""Trajectories equal to diffusers' schedulers on the same network and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS
from fastdiff.solvers.closed_form import MixtureNetwork

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: its schedulers cannot be compared"
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
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


def assert_equal(got: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    assert got.shape == expected.shape
    for a, b in zip(got, expected):
        assert float((a - b).abs().max()) <= bound * max(1.0, float(b.abs().max()))


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


CASES = [
    ("euler", {}, "EulerDiscreteScheduler", {}),
    ("heun", {}, "HeunDiscreteScheduler", {}),
    ("kdpm2", {}, "KDPM2DiscreteScheduler", {}),
    ("lms", {"order": 4}, "LMSDiscreteScheduler", {}),
    ("dpmpp_2m", {}, "DPMSolverMultistepScheduler", {"solver_order": 2}),
    ("dpmpp_3m", {}, "DPMSolverMultistepScheduler", {"solver_order": 3}),
    ("unipc", {"order": 2}, "UniPCMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}),
    ("unipc", {"order": 3}, "UniPCMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "zero"}),
    (
        "unipc",
        {"order": 3, "variant": "bh1"},
        "UniPCMultistepScheduler",
        {"solver_order": 3, "final_sigmas_type": "zero", "solver_type": "bh1"},
    ),
    ("deis", {"order": 2}, "DEISMultistepScheduler", {"solver_order": 2}),
    ("deis", {"order": 3}, "DEISMultistepScheduler", {"solver_order": 3}),
]
#: Their last state is NaN (bh1 into sigma = 0), or ends at the noise of t = 0 (deis): compared up to there.
LAST_DIFFERS = ("bh1", "DEISMultistepScheduler")
IN_Y = ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler")


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize(("name", "options", "theirs_name", "their_options"), CASES)
def test_deterministic_solvers(
    name: str,
    options: dict[str, Any],
    theirs_name: str,
    their_options: dict[str, Any],
    steps: int,
    prediction: str,
) -> None:
    if (theirs_name, prediction) == ("KDPM2DiscreteScheduler", "x0"):
        pytest.skip("diffusers' KDPM2 takes no x0 networks")
    spacing = {"timestep_spacing": "trailing", "prediction_type": NAMES[prediction]}
    scheduler = getattr(diffusers, theirs_name)(**BASE, **spacing, **their_options)
    scheduler.set_timesteps(steps)
    table = SOLVERS[name](SCHEDULE, prediction, steps, clip=None, **options)
    x = initial()
    alphas = [table.start[0], *table["i_y"].tolist()]
    in_y = theirs_name in IN_Y
    got = ours(network(prediction), steps, name, clip=None, **options)
    state = x / alphas[0] if in_y else x
    expected = [x]
    for k, t in enumerate(scheduler.timesteps):
        m = network(prediction)(scheduler.scale_model_input(state, t), t.repeat(2))
        state = scheduler.step(m, t, state).prev_sample
        expected.append(state * alphas[k + 1] if in_y else state)
    last = -1 if theirs_name in LAST_DIFFERS or options.get("variant") in LAST_DIFFERS else None
    bound = 1e-4 if theirs_name == "DEISMultistepScheduler" else 1e-5  # its coefficients cancel in float32
    assert_equal(got[:last], torch.stack(expected)[:last], bound)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(
    ("name", "theirs_name"),
    [
        ("euler_ancestral", "EulerAncestralDiscreteScheduler"),
        ("kdpm2_ancestral", "KDPM2AncestralDiscreteScheduler"),
    ],
)
def test_ancestral_solvers(name: str, theirs_name: str, prediction: str) -> None:
    """The noise of step i is the generator's draw i, in both."""
    spacing = {"timestep_spacing": "trailing", "prediction_type": NAMES[prediction]}
    scheduler = getattr(diffusers, theirs_name)(**BASE, **spacing)
    scheduler.set_timesteps(12)
    table = SOLVERS[name](SCHEDULE, prediction, 12, clip=None)
    alphas = [table.start[0], *table["i_y"].tolist()]
    state, expected = initial() / alphas[0], [initial()]
    generator = torch.Generator().manual_seed(5)
    draws = {}
    for k, t in enumerate(scheduler.timesteps):
        before = generator.get_state()
        m = network(prediction)(scheduler.scale_model_input(state, t), t.repeat(2))
        state = scheduler.step(m, t, state, generator=generator).prev_sample
        expected.append(state * alphas[k + 1])
        draws[k] = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5).set_state(before))
    got = ours(network(prediction), 12, name, clip=None, noise=lambda stream, row, like: draws[row])
    assert_equal(got, torch.stack(expected))


@pytest.mark.parametrize("prediction", NAMES)
def test_singlestep(prediction: str) -> None:
    """Their singlestep solver goes over a grid of its own; on our levels, middles included, it is our dpmpp_2s."""
    table = SOLVERS["dpmpp_2s"](SCHEDULE, prediction, 6, clip=None)
    named = {"prediction_type": NAMES[prediction], "solver_order": 2, "final_sigmas_type": "zero"}
    scheduler = diffusers.DPMSolverSinglestepScheduler(**BASE, **named, lower_order_final=True)
    scheduler.set_timesteps(len(table))
    alpha, sigma = table.levels
    scheduler.sigmas = torch.tensor([*(sigma / alpha), 0.0], dtype=torch.float64)
    scheduler.timesteps = torch.tensor(table["t"])
    state, expected = initial(), [initial()]
    for t in scheduler.timesteps:
        m = network(prediction)(state, t.float().repeat(2))
        state = scheduler.step(m, t, state).prev_sample
        expected.append(state)
    got = ours(network(prediction), 6, "dpmpp_2s", clip=None)
    assert len(table) == 11 and scheduler.order_list == [1, 2] * 5 + [1]
    assert_equal(got, torch.stack(expected))
