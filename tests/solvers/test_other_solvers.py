"""VDM, Euler-Maruyama and DDIM inversion against their published formulas, and what their options do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff import rng
from fastdiff.rng import Stream
from fastdiff.sampling import sample
from fastdiff.schedule import Schedule
from fastdiff.solvers import SOLVERS, make_grid
from fastdiff.solvers.closed_form import MixtureNetwork

DISCRETE = Schedule.scaled_linear(1000)
CONTINUOUS = Schedule.from_log_snr(lambda t: 13.3 - 18.3 * t)
SHAPE = (3, 4, 5)
SEEDS = torch.arange(2)


def network(schedule: Schedule, prediction: str) -> MixtureNetwork:
    return MixtureNetwork(schedule, prediction, (-0.8, 0.5), (0.2, 0.4))


def drawn(net: MixtureNetwork, steps: int, **options) -> Tensor:
    return sample(net, steps, shape=SHAPE, num=2, clip=None, dtype=torch.float64, **options)


def noise(row: int, stream: Stream = Stream.SOLVER) -> Tensor:
    return rng.normal(SEEDS, SHAPE, row=row, stream=stream, dtype=torch.float64)


def test_vdm_as_published() -> None:
    """mean = sqrt(alpha_s^2 / alpha_t^2) (z - c sigma_t eps), variance sigma_s^2 c, c = -expm1(gamma_s - gamma_t)."""
    net, steps = network(CONTINUOUS, "eps"), 9
    z, times = noise(0, Stream.INITIAL), np.linspace(1, 0, steps + 1)
    for i, (t, s) in enumerate(zip(times[:-1], times[1:])):
        gamma_t, gamma_s = (-13.3 + 18.3 * u for u in (t, s))
        alpha2_t, alpha2_s = (1 / (1 + np.exp(g)) for g in (gamma_t, gamma_s))
        eps = net(z, torch.full((2,), t, dtype=torch.float64))
        if i == steps - 1:
            z = (z - (1 - alpha2_t) ** 0.5 * eps) / alpha2_t**0.5
            break
        c = -np.expm1(gamma_s - gamma_t)
        mean = (alpha2_s / alpha2_t) ** 0.5 * (z - c * (1 - alpha2_t) ** 0.5 * eps)
        z = mean + ((1 - alpha2_s) * c) ** 0.5 * noise(i)
    torch.testing.assert_close(drawn(net, steps, solver="vdm"), z, rtol=0, atol=1e-10)


@pytest.mark.parametrize("flow", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["vp", "ve", "flow"])
def test_em_as_published(kind: str, flow: float) -> None:
    """dx = [-beta x / 2 - (1 - flow / 2) beta score] dt + sqrt((1 - flow) beta) dw, in the kind's own scale."""
    schedule = Schedule.from_log_snr(lambda t: 5 - 9 * t, kind=kind)
    net, steps = network(schedule, "eps"), 12
    grid = make_grid(schedule, "eps", steps, clip=None)
    first = grid.levels[0]
    x = noise(0, Stream.INITIAL) * (1.0 if kind == "vp" else first.sigma)
    z = x / np.hypot(first.alpha, first.sigma)
    for i, now, then in grid.steps():
        norm, sigma = np.hypot(now.alpha, now.sigma), now.sigma / np.hypot(now.alpha, now.sigma)
        eps = net(z * norm, torch.full((2,), now.t, dtype=torch.float64))
        if then.clean:
            z = (z * norm - now.sigma * eps) / now.alpha
            break
        log_alpha = [-0.5 * np.log1p((level.sigma / level.alpha) ** 2) for level in (now, then)]
        beta = 2 * (log_alpha[1] - log_alpha[0])
        drift = z / 2 - (1 - flow / 2) * eps / sigma
        z = z + beta * drift + ((1 - flow) * beta) ** 0.5 * noise(i)
    torch.testing.assert_close(drawn(net, steps, solver="em", flow=flow), z, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "flow", "edm"])
def test_inversion_and_back(prediction: str) -> None:
    """From an image to noise and back: the error falls with the steps, the same for every prediction."""
    image = torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(2, *SHAPE)
    net, errors = network(DISCRETE, prediction), []
    for steps in (10, 50, 250):
        latent = drawn(net, steps, solver="ddim_inverse", x_init=image)
        assert 0.5 < float(latent.std()) < 1.2
        errors.append(float((drawn(net, steps, x_init=latent) - image).abs().max()))
    assert errors == pytest.approx([0.145, 0.0374, 0.00596], rel=0.01)


def test_inversion_starts_from_the_image() -> None:
    table = SOLVERS["ddim_inverse"](DISCRETE, "v", 4)
    assert table["t"].tolist() == [249, 499, 749, 999]
    assert (table.start, table.init_noise, table.evaluations) == ((1.0, 0.0), 0.0, 4)
    np.testing.assert_allclose(table["i_y"], DISCRETE.alpha(table["t"]))


def test_inversion_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="x_init must be given with ddim_inverse"):
        drawn(network(DISCRETE, "v"), 4, solver="ddim_inverse")


def test_evaluations() -> None:
    """What a step costs: two-stage solvers pay twice but for the last step, PNDM's warm-up once or nine times more."""
    paid = {name: SOLVERS[name](DISCRETE, "v", 10).evaluations for name in SOLVERS}
    twice = {"heun", "kdpm2", "kdpm2_ancestral", "dpmpp_2s", "dpmpp_sde"}
    assert paid == {name: 19 if name in twice else 11 if name == "pndm" else 10 for name in SOLVERS}
    assert SOLVERS["pndm"](DISCRETE, "v", 10, warmup="runge_kutta").evaluations == 19


def test_lcm_boundary() -> None:
    """With scalings the network's x0 counts nothing at t = 0; without, its x0 is the result."""
    times = [999, 500, 0]
    scaled = SOLVERS["lcm"](DISCRETE, "v", None, timesteps=times, timestep_scaling=10.0)
    assert (scaled["b"][-1], scaled["a"][-1]) == (1.0, 0.0)
    plain = SOLVERS["lcm"](DISCRETE, "v", None, timesteps=times)
    assert (plain["b"][-1], plain["a"][-1]) == (0.0, 1.0)
    np.testing.assert_allclose(plain["s"], [*DISCRETE.sigma([500, 0]), 0.0])


def test_shift_moves_levels_to_more_noise() -> None:
    schedule = Schedule.from_log_snr(lambda t: 8 - 16 * t)
    even, shifted = (SOLVERS["flow_euler"](schedule, "v", 6, shift=s)["t"] for s in (1.0, 3.0))
    moved = schedule.log_snr(even) - schedule.log_snr(shifted)
    np.testing.assert_allclose(moved[1:], 2 * np.log(3.0), rtol=1e-9)
    assert shifted[0] == even[0] or moved[0] >= 0


def test_edm_networks_are_told_c_noise() -> None:
    """Even of a discrete schedule, whose times are integers; and where c_noise is infinite it is said."""
    table = SOLVERS["euler"](DISCRETE, "edm", 5)
    assert not table.discrete_time
    np.testing.assert_allclose(table["t"], -DISCRETE.log_snr([999, 799, 599, 399, 199]) / 8, rtol=1e-14)
    alpha, sigma = DISCRETE.alpha(999), DISCRETE.sigma(999)
    assert table["c_in"][0] == pytest.approx(1 / np.hypot(sigma, 0.5 * alpha), rel=1e-14)
    with pytest.raises(ValueError, match="at t = 999.*c_noise is infinite"):
        SOLVERS["euler"](DISCRETE.rescale_zero_terminal_snr(), "edm", 5)
