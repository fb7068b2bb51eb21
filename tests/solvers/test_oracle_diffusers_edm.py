"""EDM networks and rectified flows equal diffusers' schedulers for them on the same network and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers.closed_form import MixtureNetwork

diffusers = pytest.importorskip(
    "diffusers", reason="diffusers is not installed: its schedulers cannot be compared"
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SHAPE = (3, 4, 5)
EDM = Schedule.from_log_snr(lambda t: -2 * np.log(t), t_min=1e-3, t_max=100.0, kind="ve")


def straight(t: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 2 * (np.log1p(-t) - np.log(t))


FLOW = Schedule.from_log_snr(straight, kind="flow")


def network(schedule: Schedule, prediction: str) -> MixtureNetwork:
    return MixtureNetwork(schedule, prediction, (-0.8, 0.5), (0.2, 0.4))


def draws(count: int = 40) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, *SHAPE, generator=generator) for _ in range(count)]


def ours(net: MixtureNetwork, times: list[float], solver: str, x: Tensor, **options: Any) -> Tensor:
    drawn = draws()
    return sample(
        *(net, times),
        solver=solver,
        shape=SHAPE,
        num=2,
        x_init=x,
        trajectory=True,
        clip=None,
        noise=lambda stream, row, like: drawn[row],
        **options,
    )


def assert_equal(got: Tensor, expected: list[Tensor]) -> None:
    """Largest difference of each state, relative to the largest value of it and of the one before."""
    assert len(got) == len(expected)
    before = expected[0]
    for a, b in zip(got, expected):
        size = max(1.0, float(b.abs().max()), float(before.abs().max()))
        assert float((a - b).abs().max()) <= 1e-5 * size
        before = b


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 6, 20])
@pytest.mark.parametrize(
    ("solver", "options", "theirs", "their_options"),
    [
        ("euler", {}, "EDMEulerScheduler", {}),
        ("dpmpp_2m", {}, "EDMDPMSolverMultistepScheduler", {"solver_order": 2}),
        ("dpmpp_3m", {}, "EDMDPMSolverMultistepScheduler", {"solver_order": 3}),
        ("dpmpp_2m_sde", {}, "EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        (
            *("dpmpp_2m_sde", {"variant": "heun"}, "EDMDPMSolverMultistepScheduler"),
            {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        ),
    ],
)
def test_edm(solver, options, theirs: str, their_options, steps: int, sigma_data: float) -> None:
    """The network is given c_in x and c_noise by both, and what it returns is read with c_skip and c_out."""
    scheduler = getattr(diffusers, theirs)(**their_options, sigma_data=sigma_data)
    scheduler.set_timesteps(steps)
    net = network(EDM, f"edm:{sigma_data}")
    noise = {"generator": torch.Generator().manual_seed(5)} if "sde" in str(their_options.values()) else {}
    states = [float(scheduler.sigmas[0]) * draws(1)[0]]
    for t in scheduler.timesteps:
        m = net(scheduler.scale_model_input(states[-1], t), t.repeat(2))
        states.append(scheduler.step(m, t, states[-1], **noise).prev_sample)
    assert_equal(ours(net, scheduler.sigmas[:-1].double().tolist(), solver, states[0], **options), states)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_flow_matching(steps: int, shift: float, stochastic: bool) -> None:
    """From pure noise; both shift the same levels."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, stochastic_sampling=stochastic)
    scheduler.set_timesteps(steps)
    net = network(FLOW, "flow")
    states, generator = [draws(1)[0]], torch.Generator().manual_seed(5)
    for sigma, t in zip(scheduler.sigmas, scheduler.timesteps):
        m = net(states[-1], sigma.repeat(2))
        states.append(scheduler.step(m, t, states[-1], generator=generator).prev_sample)
    times = scheduler.sigmas[:-1].double().tolist()
    assert_equal(ours(net, times, "flow_euler", states[0], stochastic=stochastic), states)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_levels(shift: float) -> None:
    """The option shifts as the scheduler does, given evenly spaced levels."""
    even = np.linspace(1.0, 0.1, 10)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=even)
    seen: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return -x

    sample(
        *(net, 10),
        solver="flow_euler",
        shift=shift,
        schedule=FLOW,
        prediction="flow",
        shape=SHAPE,
    )
    np.testing.assert_allclose(seen, scheduler.sigmas[:-1].numpy(), rtol=1e-5)
