"""Stochastic, few-step and pseudo-multistep solvers equal diffusers' schedulers on the same network and noise."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
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

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SCHEDULE = Schedule.scaled_linear(1000)
BASE = {
    **{"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"},
    **{"beta_start": 0.00085, "beta_end": 0.012},
}
NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (3, 4, 5)
Noise = Callable[[int, int, Tensor], Tensor]


def network(prediction: str) -> MixtureNetwork:
    return MixtureNetwork(SCHEDULE, prediction, (-0.8, 0.5), (0.2, 0.4))


def initial() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))


def draws(count: int) -> list[Tensor]:
    """What a generator with seed 5 gives, one draw after the other."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, *SHAPE, generator=generator) for _ in range(count)]


def ours(prediction: str, steps: Any, solver: str, **options: Any) -> Tensor:
    drawn = draws(64)
    given = {"shape": SHAPE, "num": 2, "x_init": initial(), "trajectory": True, "clip": None}
    return sample(
        network(prediction),
        steps,
        solver=solver,
        noise=lambda stream, row, like: drawn[row],
        **{**given, **options},
    )


def theirs(scheduler: Any, prediction: str, start: Tensor | None = None, **options: Any) -> Tensor:
    states = [initial() if start is None else start]
    for t in scheduler.timesteps:
        m = network(prediction)(scheduler.scale_model_input(states[-1], t), t.repeat(2))
        states.append(scheduler.step(m, t, states[-1], **options).prev_sample)
    return torch.stack(states)


def assert_equal(got: Tensor, expected: Tensor, bound: float = 1e-5) -> None:
    """Largest difference of each state, relative to its largest value."""
    assert got.shape == expected.shape
    for a, b in zip(got, expected):
        assert float((a - b).abs().max()) <= bound * max(1.0, float(b.abs().max()))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm(steps: int, prediction: str) -> None:
    scheduler = diffusers.LCMScheduler(**BASE, prediction_type=NAMES[prediction])
    scheduler.set_timesteps(steps)
    expected = theirs(scheduler, prediction, generator=generator())
    assert_equal(ours(prediction, scheduler.timesteps.tolist(), "lcm", timestep_scaling=10.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prediction", NAMES)
def test_tcd(prediction: str, gamma: float) -> None:
    """All but the last state: diffusers ends at the noise of t = 0, a table at the clean image."""
    scheduler = diffusers.TCDScheduler(**BASE, prediction_type=NAMES[prediction])
    scheduler.set_timesteps(6)
    expected = theirs(scheduler, prediction, eta=gamma, generator=generator())
    got = ours(prediction, scheduler.timesteps.tolist(), "tcd", gamma=gamma)
    assert_equal(got[:-1], expected[:-1])


@pytest.mark.parametrize("warmup", ["plms", "runge_kutta"])
@pytest.mark.parametrize("steps", [4, 10, 50])
def test_pndm(steps: int, warmup: str) -> None:
    """eps alone: of v networks diffusers averages the outputs of several states before it reads eps from one."""
    options = {"timestep_spacing": "leading", "set_alpha_to_one": True, "skip_prk_steps": warmup == "plms"}
    scheduler = diffusers.PNDMScheduler(**BASE, **options)
    scheduler.set_timesteps(steps)
    expected = theirs(scheduler, "eps")
    table = SOLVERS["pndm"](SCHEDULE, "eps", steps, spacing="leading", warmup=warmup)
    assert table["t"].tolist() == scheduler.timesteps.tolist()
    assert_equal(ours("eps", steps, "pndm", spacing="leading", warmup=warmup), expected)


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("orders", [(1, 1), (2, 2), (3, 2), (3, 4), (2, 3)])
@pytest.mark.parametrize("steps", [5, 20])
def test_sa_solver(steps: int, orders: tuple[int, int], prediction: str) -> None:
    """All but the last state: diffusers ends at the noise of t = 0."""
    names = {"prediction_type": NAMES[prediction], "timestep_spacing": "trailing"}
    scheduler = diffusers.SASolverScheduler(
        **BASE, **names, predictor_order=orders[0], corrector_order=orders[1]
    )
    scheduler.set_timesteps(steps)
    expected = theirs(scheduler, prediction, generator=generator())
    got = ours(prediction, steps, "sa_solver", order=orders[0], corrector_order=orders[1])
    assert_equal(got[:-1], expected[:-1])


@pytest.mark.parametrize("prediction", NAMES)
@pytest.mark.parametrize("variant", ["midpoint", "heun"])
@pytest.mark.parametrize("steps", [6, 20])
def test_dpmpp_2m_sde(steps: int, variant: str, prediction: str) -> None:
    names = {"prediction_type": NAMES[prediction], "timestep_spacing": "trailing"}
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BASE, **names, algorithm_type="sde-dpmsolver++", solver_order=2, solver_type=variant
    )
    scheduler.set_timesteps(steps)
    expected = theirs(scheduler, prediction, generator=generator())
    assert_equal(ours(prediction, steps, "dpmpp_2m_sde", variant=variant), expected)


class Path:
    """A Brownian path over falling noise levels, made of our draws: what a noise sampler is asked for."""

    def __init__(self, ratios: np.ndarray) -> None:
        self.ratios, steps = ratios, -np.diff(ratios)
        parts = [torch.zeros(2, *SHAPE), *(n * s**0.5 for n, s in zip(draws(len(steps)), steps))]
        self.values = torch.stack(parts).double().cumsum(0)

    def __call__(self, start: Any, stop: Any) -> Tensor:
        i, j = (int(np.abs(np.log(self.ratios) - np.log(float(s))).argmin()) for s in (start, stop))
        return ((self.values[j] - self.values[i]) / (self.ratios[i] - self.ratios[j]) ** 0.5).float()


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("steps", [3, 12])
def test_dpmpp_sde(steps: int, prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In diffusers the noise comes from torchsde; here from a path made of our own draws."""
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

    names = {"prediction_type": NAMES[prediction], "timestep_spacing": "trailing"}
    scheduler = DPMSolverSDEScheduler(**BASE, **names)
    scheduler.set_timesteps(steps)
    table = SOLVERS["dpmpp_sde"](SCHEDULE, prediction, steps, clip=None)
    alphas = np.array([table.start[0], *table["i_y"]])
    sigmas = np.array([table.start[1], *table["i_s"]])
    scheduler.noise_sampler = Path((sigmas / alphas)[:-1])
    expected = theirs(scheduler, prediction, initial() / alphas[0])
    scale = torch.tensor(alphas, dtype=torch.float32).reshape(-1, 1, 1, 1, 1)
    assert_equal(ours(prediction, steps, "dpmpp_sde"), expected * scale)


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim_inverse(steps: int) -> None:
    """eps alone: x0 networks divide by 0 at the clean image in diffusers, v ones are read at the cleaner level."""
    scheduler = diffusers.DDIMInverseScheduler(**BASE, timestep_spacing="leading", clip_sample=False)
    scheduler.set_timesteps(steps)
    if steps == 1:
        scheduler.timesteps = torch.tensor([999])
        scheduler.num_inference_steps = 1
    expected = theirs(scheduler, "eps")
    assert_equal(ours("eps", steps, "ddim_inverse", spacing="leading"), expected)


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_ipndm(steps: int) -> None:
    """On our levels, because its own begin at alpha = 0, where it divides by 1e-8. Its network returns v.

    All but the last state, for which diffusers keeps the combination of slopes.
    """
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    table = SOLVERS["ipndm"](SCHEDULE, "v", steps, clip=None)
    levels = [[start, *table[name]] for start, name in zip(table.start, ("i_y", "i_s"))]
    scheduler.alphas, scheduler.betas = (torch.tensor(values, dtype=torch.float32) for values in levels)
    scheduler.timesteps = torch.tensor(table["t"]).long()
    expected = theirs(scheduler, "v")
    assert_equal(ours("v", steps, "ipndm")[:-1], expected[:-1])
