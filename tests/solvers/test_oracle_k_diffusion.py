"""Trajectories equal k-diffusion's functions on the same EDM network and noise.

In float64 to 1e-8, where both are exact; in float32 to 1e-5 with 7 or more steps (below, differences of almost equal
noise levels lose their digits there in k-diffusion).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers.closed_form import MixtureNetwork

FOUND = importlib.util.find_spec("k_diffusion")
pytestmark = pytest.mark.skipif(
    FOUND is None, reason="k-diffusion is not installed: its functions cannot be compared"
)
SHAPE = (3, 4, 5)
DTYPES = {torch.float64: 1e-8, torch.float32: 1e-5}
RUNS = [(torch.float64, 1), (torch.float64, 2), (torch.float64, 12), (torch.float32, 7), (torch.float32, 20)]
SCHEDULE = Schedule.from_log_snr(lambda t: -2 * np.log(t), t_min=1e-3, t_max=100.0, kind="ve")
NETWORK = MixtureNetwork(SCHEDULE, "edm", (-0.8, 0.5), (0.2, 0.4))


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    """The module k_diffusion.sampling alone: its package would import torchvision, clip and more."""
    assert FOUND is not None
    package, tools = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(FOUND.submodule_search_locations or ())
    package.utils = tools
    tools.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    solvers = types.ModuleType("torchdiffeq")
    solvers.odeint = None
    stubs = {"k_diffusion": package, "k_diffusion.utils": tools, "torchdiffeq": solvers}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {**stubs, "torchsde": types.ModuleType("torchsde")}.items():
            patch.setitem(sys.modules, name, module)
        yield importlib.import_module("k_diffusion.sampling")
        sys.modules.pop("k_diffusion.sampling")


def draws(count: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, *SHAPE, generator=generator) for _ in range(count)]


def denoised(x: Tensor, sigma: Tensor) -> Tensor:
    return NETWORK.denoise(x.double(), 1.0, sigma.double().reshape(-1, 1, 1, 1)).to(x.dtype)


def assert_equal(got: Tensor, expected: Tensor) -> None:
    bound = DTYPES[expected.dtype] * max(1.0, float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= bound


def compare(
    function: Callable[..., Tensor],
    solver: str,
    sigmas: Tensor,
    theirs_only: dict[str, Any],
    noise: Callable[[int, int, Tensor], Tensor],
    rows: int = 1,
    **options: Any,
) -> None:
    """Every state at the start of a step of `rows` rows, and the last one."""
    x: Tensor = sigmas[0] * draws(1)[0].to(sigmas.dtype)
    states: list[Tensor] = []
    last = function(
        denoised, x, sigmas, callback=lambda info: states.append(info["x"]), disable=True, **theirs_only
    )
    times = sigmas[:-1].double().tolist()
    got = sample(
        NETWORK,
        times,
        solver=solver,
        shape=SHAPE,
        num=2,
        x_init=x,
        clip=None,
        noise=noise,
        trajectory=True,
        dtype=sigmas.dtype,
        **options,
    )
    assert len(got) == rows * (len(times) - 1) + 2
    for k, expected in enumerate(states):
        assert_equal(got[rows * k], expected)
    assert_equal(got[-1], last)


def sigmas_of(steps: int, dtype: torch.dtype) -> Tensor:
    ramp = np.linspace(60.0 ** (1 / 7), 0.02 ** (1 / 7), steps) ** 7
    return torch.tensor([*ramp, 0.0], dtype=dtype)


@pytest.mark.parametrize(("dtype", "steps"), RUNS)
@pytest.mark.parametrize(
    ("name", "solver", "rows", "options"),
    [
        ("sample_euler", "euler", 1, {}),
        ("sample_heun", "heun", 2, {}),
        ("sample_dpm_2", "kdpm2", 2, {}),
        ("sample_lms", "lms", 1, {}),
        ("sample_dpmpp_2m", "dpmpp_2m", 1, {}),
        ("sample_dpmpp_2s_ancestral", "dpmpp_2s", 2, {"eta": 0.0}),
    ],
)
def test_deterministic(
    theirs, name: str, solver: str, rows: int, options: dict, dtype: torch.dtype, steps: int
) -> None:
    def none(stream: int, row: int, like: Tensor) -> Tensor:
        raise AssertionError("no noise is wanted")

    ours = {key: value for key, value in options.items() if value}
    compare(getattr(theirs, name), solver, sigmas_of(steps, dtype), options, none, rows, **ours)


@pytest.mark.parametrize(("dtype", "steps"), RUNS[1:])
@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize(
    ("name", "solver", "rows", "options"),
    [
        ("sample_euler_ancestral", "euler_ancestral", 1, {}),
        ("sample_dpm_2_ancestral", "kdpm2_ancestral", 2, {}),
        ("sample_dpmpp_2s_ancestral", "dpmpp_2s", 2, {}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", 1, {"midpoint": ("solver_type", "variant")}),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde", 1, {"heun": ("solver_type", "variant")}),
    ],
)
def test_stochastic(theirs, name, solver, rows, options, eta: float, dtype: torch.dtype, steps: int) -> None:
    """The noise of step i is draw i, in both. (k-diffusion's dpmpp_2m_sde fails with one step.)"""
    drawn, count = draws(), iter(range(64))
    given = {names[0]: value for value, names in options.items()}
    mine = {names[1]: value for value, names in options.items()}
    compare(
        getattr(theirs, name),
        solver,
        sigmas_of(steps, dtype),
        {**given, "eta": eta, "noise_sampler": lambda start, stop: drawn[next(count)].to(dtype)},
        lambda stream, row, like: drawn[row // rows],
        rows,
        **mine,
        eta=eta,
    )


@pytest.mark.parametrize(("dtype", "steps"), RUNS[1:])
@pytest.mark.parametrize(("eta", "r"), [(1.0, 0.5), (0.6, 0.5), (1.0, 0.3)])
def test_dpmpp_sde(theirs, eta: float, r: float, dtype: torch.dtype, steps: int) -> None:
    """Both stages ask one Brownian path, made of our draws."""
    sigmas = sigmas_of(steps, dtype)
    logs = sigmas[:-1].double().log().numpy()
    inner = logs[:-1] + r * np.diff(logs)
    ratios = np.exp(np.append(np.stack((logs[:-1], inner), 1).ravel(), logs[-1]))
    parts = [n.double() * float(d) ** 0.5 for n, d in zip(draws(len(ratios) - 1), -np.diff(ratios))]
    path = torch.stack([torch.zeros_like(parts[0]), *parts]).cumsum(0)

    def noise_sampler(start: Tensor, stop: Tensor) -> Tensor:
        i, j = (int(np.abs(np.log(ratios) - np.log(float(s))).argmin()) for s in (start, stop))
        return ((path[j] - path[i]) / (ratios[i] - ratios[j]) ** 0.5).to(dtype)

    drawn = draws()
    options = {"eta": eta, "r": r}
    compare(
        theirs.sample_dpmpp_sde,
        "dpmpp_sde",
        sigmas,
        {**options, "noise_sampler": noise_sampler},
        lambda stream, row, like: drawn[row],
        2,
        **options,
    )


@pytest.mark.parametrize(("dtype", "steps"), RUNS)
@pytest.mark.parametrize("options", [{"s_churn": 5.0}, {"s_churn": 80.0, "s_tmin": 0.05, "s_tmax": 70.0}])
def test_heun_with_churn(theirs, options, dtype: torch.dtype, steps: int, monkeypatch) -> None:
    """What both ask the network for in each step, churned, and the result."""
    drawn, count, given = draws(), iter(range(64)), {**options, "s_noise": 1.003}
    monkeypatch.setattr(theirs.torch, "randn_like", lambda x: drawn[next(count)].to(dtype))
    sigmas, states = sigmas_of(steps, dtype), []
    x = sigmas[0] * draws(1)[0].to(dtype)
    last = theirs.sample_heun(
        denoised, x, sigmas, callback=lambda info: states.append(info["x"]), disable=True, **given
    )
    got = sample(
        *(NETWORK, sigmas[:-1].double().tolist()),
        solver="heun",
        shape=SHAPE,
        num=2,
        x_init=x,
        clip=None,
        trajectory=True,
        noise=lambda stream, row, like: drawn[row],
        dtype=dtype,
        **given,
    )
    assert len(got) == 2 * steps + 1  # the first churn is a row without network
    for k, expected in enumerate(states):
        assert_equal(got[2 * k + 1], expected)
    assert_equal(got[-1], last)
