"""`fastdiff.sample` of a bridge: every solver against the plain chain it is in other coordinates, and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff.sampling import step_table
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, anchored, ddpm
from fastdiff.solvers.closed_form import MixtureNetwork
from fastdiff.systems.ou_bridge import DiffusionBridge, HoDiffusion, betas_to_deltas

T, SHAPE = 60, (2, 3, 4)
THETA, ETA2 = 2.0, 0.5
SCALE = (ETA2 / (2 * THETA)) ** 0.5
DELTA = betas_to_deltas(np.linspace(1e-3, 0.15, T), THETA)
TARGET = torch.tensor([0.8, -1.5]).reshape(2, 1, 1)
MEANS, STDS = (0.7, -2.0), (0.4, 1.2)


def plain_schedule() -> Schedule:
    return Schedule.from_alphas_cumprod(np.exp(-2 * THETA * np.cumsum(DELTA.numpy())))


def plain_net() -> MixtureNetwork:
    return MixtureNetwork(plain_schedule(), "eps", MEANS, STDS)


def bridge_of(target: Tensor | float = TARGET) -> DiffusionBridge:
    net, goal = plain_net(), torch.as_tensor(target)
    return DiffusionBridge(
        lambda x, t: net((x - goal.to(x)) / SCALE, t), DELTA, T, THETA, ETA2, target, shape=SHAPE
    )


def both(steps: int, more_plain: dict[str, Any] | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """(draws of the bridge, x* + s draws of the plain chain with the same noise)."""
    shared = {"num": 3, "seed": 5, "dtype": torch.float64, "clip": None}
    mine = fastdiff.sample(bridge_of(), steps, **{**shared, **options})
    plain = fastdiff.sample(
        plain_net(),
        steps,
        schedule=plain_schedule(),
        prediction="eps",
        shape=SHAPE,
        **{**shared, **options, **(more_plain or {})},
    )
    return mine, TARGET + SCALE * plain


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in ("flow_euler", "ddim_inverse")])
def test_every_solver_is_the_plain_one_in_other_coordinates(solver: str) -> None:
    mine, plain = both(12, solver=solver)
    torch.testing.assert_close(mine, plain, atol=2e-6, rtol=1e-6)


def test_known_regions_starts_and_passes_are_moved_too() -> None:
    image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 3, 4)
    mask[..., :2] = 1
    inside = (image - TARGET) / SCALE
    for options in (
        {"mask": mask, "solver": "ddpm"},
        {"mask": mask, "resample": (3, 2), "solver": "ddpm"},
        {"start": 4, "solver": "ddim"},
        {"temperature": 0.6, "solver": "ddpm"},
        {"mask": mask, "solver": "dpmpp_2m", "trajectory": True},
    ):
        given = {} if "temperature" in options else {"x_init": image}
        mine, plain = both(9, {"x_init": inside} if given else {}, **given, **options)
        torch.testing.assert_close(mine, plain, atol=2e-6, rtol=1e-6)
    kept = fastdiff.sample(bridge_of(), 9, num=1, solver="ddpm", x_init=image, mask=mask)[0]
    torch.testing.assert_close(kept[..., :2], image[..., :2], atol=1e-6, rtol=0)


def test_the_fast_step_is_the_reference_step() -> None:
    x64, x32 = (
        fastdiff.sample(bridge_of(), 20, solver=s, num=2, dtype=d)
        for s, d in (("dpmpp_2m", torch.float64), ("dpmpp_2m", torch.float32))
    )
    torch.testing.assert_close(x32, x64.float(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_samples_have_the_moments_of_the_chain(variance: str) -> None:
    """Gaussian data: the exact network is affine, so mean and variance of every state follow a recursion."""
    mean, std, steps, num = 0.3, 0.25, 15, 3000
    net = MixtureNetwork(plain_schedule(), "eps", [(mean - 1.2) / SCALE], [std / SCALE])
    bridge = DiffusionBridge(
        lambda x, t: net((x - 1.2) / SCALE, t), DELTA, T, THETA, ETA2, 1.2, shape=(1, 4, 4)
    )
    table = step_table(bridge, steps, solver="ddpm", variance=variance)
    m, v = 1.2, SCALE**2
    for row in range(len(table)):
        t = torch.tensor([int(table["t"][row])])
        ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        low, high = bridge(ends, t.expand(2)).flatten().tolist()
        u_x, u_m, u_c, a, b, d, s = (float(table[n][row]) for n in ("u_x", "u_m", "u_c", "a", "b", "d", "s"))
        gain = b + a * (u_x + u_m * (high - low))
        m = gain * m + a * (u_m * low + u_c * 1.2) + d * 1.2
        v = gain**2 * v + s**2
    x = fastdiff.sample(bridge, steps, num=num, solver="ddpm", variance=variance).double()
    count = x.numel()
    assert float(x.mean()) == pytest.approx(m, abs=5 * (v / count) ** 0.5)
    assert float(x.var()) == pytest.approx(v, rel=5 * (2 / count) ** 0.5)


def test_ho_has_the_rows_of_ddpm() -> None:
    schedule = Schedule.linear(40)
    betas = np.linspace(1e-4, 0.02, 40)
    bridge = HoDiffusion(lambda x, t: x, betas_to_deltas(betas), 40, shape=SHAPE)
    for options in ({}, {"variance": "fixed_large"}):
        mine = step_table(bridge, 40, solver="ddpm", **options)
        plain = ddpm(schedule, "eps", 40, clip=None, **options)
        np.testing.assert_allclose(mine.rows, plain.rows, rtol=1e-9, atol=1e-12)
        assert not mine.uses_cond and mine.init_noise == 1.0


def test_what_cannot_be_moved_is_refused() -> None:
    with pytest.raises(ValueError, match="table must not use cond"):
        anchored(anchored(ddpm(Schedule.linear(10), "eps", 5)))
    with pytest.raises(ValueError, match="scale must be finite and > 0, got 0"):
        anchored(ddpm(Schedule.linear(10), "eps", 5), 0.0)
    with pytest.raises(ValueError, match="prediction must be 'eps' for a bridge, got 'v'"):
        fastdiff.sample(bridge_of(), 5, prediction="v")
    with pytest.raises(ValueError, match="clip must not be dynamic"):
        fastdiff.sample(bridge_of(), 5, clip="dynamic")
    with pytest.raises(ValueError, match=r"diffusion_target must broadcast over a sample \(1, 3, 4\)"):
        fastdiff.sample(bridge_of(), 5, num=1, shape=(1, 3, 4))
    with pytest.raises(ValueError, match="mask must fit"):
        fastdiff.sample(bridge_of(), 5, num=1, x_init=torch.zeros(SHAPE), mask=torch.ones(5, 5))
    with pytest.raises(TypeError, match="sample: cond must be what the network takes .*x, t, got 'cond'"):
        fastdiff.sample(bridge_of(), 5, num=1, cond=torch.zeros(1, *SHAPE))
    with pytest.raises(TypeError, match="sample: labels must be what the network takes .*x, t, got 'labels'"):
        fastdiff.sample(bridge_of(), 5, num=1, labels=3)
