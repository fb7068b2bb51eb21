"""The Ornstein-Uhlenbeck bridge against its closed forms, in its own steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdiff.schedule import Schedule
from fastdiff.solvers import ddpm
from fastdiff.systems.ou_bridge import DiffusionBridge, HoDiffusion, betas_to_deltas

DELTA = torch.linspace(0.01, 0.2, 12, dtype=torch.float64)
PROCESSES = [(1.0, 2.0, 0.0), (2.0, 0.01, 0.7), (0.5, 3.0, -1.5)]


def bridge_of(theta: float, eta2: float, target: Any, **options: Any) -> DiffusionBridge:
    return DiffusionBridge(
        lambda x, t: torch.zeros_like(x), DELTA, len(DELTA), theta, eta2, target, **options
    )


@pytest.mark.parametrize(("theta", "eta2", "target"), PROCESSES)
def test_one_step_after_another_gives_the_marginal(theta: float, eta2: float, target: float) -> None:
    """Means and variances composed from q(x_t | x_{t-1}) are those of q(x_t | x_0), for a point and for a Gaussian."""
    bridge = bridge_of(theta, eta2, target)
    x0, zero, one = torch.tensor([[1.3]], dtype=torch.float64), torch.zeros(1, 1), torch.ones(1, 1)
    mean, variance = x0.clone(), 0.0
    for t in range(len(DELTA)):
        gain = bridge.posterior_onestep_sample(mean + 1, t, zero) - bridge.posterior_onestep_sample(
            mean, t, zero
        )
        spread = bridge.posterior_onestep_sample(mean, t, one) - bridge.posterior_onestep_sample(
            mean, t, zero
        )
        variance = float(gain) ** 2 * variance + float(spread) ** 2
        mean = bridge.posterior_onestep_sample(mean, t, zero)
        whole = bridge.posterior_sample(x0, t, zero)
        deviation = float(bridge.posterior_sample(x0, t, one) - whole)
        assert float(whole) == pytest.approx(float(mean), abs=2e-6)
        assert deviation**2 == pytest.approx(variance, rel=3e-6)
        decay = np.exp(-theta * float(DELTA[: t + 1].sum()))
        assert float(whole) == pytest.approx(target + decay * (1.3 - target), abs=1e-6)
        assert deviation**2 == pytest.approx(eta2 / (2 * theta) * (1 - decay**2), rel=1e-6)


@pytest.mark.parametrize(("theta", "eta2", "target"), PROCESSES)
@pytest.mark.parametrize("t", [0, 1, 7, 11])
def test_the_bridge_posterior_is_bayes_rule(theta: float, eta2: float, target: float, t: int) -> None:
    """q(x_{t-1} | x_t, x_0) from the joint Gaussian of (x_{t-1}, x_t) given x_0."""
    bridge = bridge_of(theta, eta2, target)
    x0, x_t, s2 = 0.4, 1.1, eta2 / (2 * theta)
    before, last = float(DELTA[:t].sum()), float(DELTA[t])
    mean_before = target + np.exp(-theta * before) * (x0 - target)
    var_before, gain = s2 * (1 - np.exp(-2 * theta * before)), np.exp(-theta * last)
    mean_t, var_t = target + gain * (mean_before - target), gain**2 * var_before + s2 * (1 - gain**2)
    weight = var_before * gain / var_t
    mean, variance = bridge.bridge_posterior(
        *(torch.tensor([[v]], dtype=torch.float64) for v in (x_t, x0)), t
    )
    assert float(mean) == pytest.approx(mean_before + weight * (x_t - mean_t), abs=1e-7)
    assert float(variance) == pytest.approx(var_before - weight * gain * var_before, abs=1e-9)


@pytest.mark.parametrize(("theta", "eta2", "target"), PROCESSES)
def test_a_step_back_with_the_true_noise_is_the_posterior(theta: float, eta2: float, target: float) -> None:
    """The mean of p(x_{t-1} | x_t) is that of the bridge posterior when the network tells the noise of x_t."""
    bridge = bridge_of(theta, eta2, target)
    torch.manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    for t in range(len(DELTA)):
        x_t = bridge.posterior_sample(x0, t, eps)
        mean, variance = bridge.prior_onestep_moments(x_t, t, noise=eps)
        torch.testing.assert_close(mean, bridge.bridge_posterior(x_t, x0, t)[0], atol=5e-6, rtol=0)
        own = bridge.process.scale**2 * bridge.process.beta[t] * (t > 0)
        assert float(variance[0, 0]) == pytest.approx(own, rel=1e-6)


def test_ho_is_ddpm_step_for_step() -> None:
    """Against the formulas of Ho et al. (algorithm 2) and the rows of the ddpm solver with the large variance."""
    torch.manual_seed(0)
    T = 50
    schedule = Schedule.linear(T)
    betas = 1 - schedule.alphas_cumprod / np.concatenate(([1.0], schedule.alphas_cumprod[:-1]))
    net = torch.nn.Conv1d(2, 2, 1)
    bridge = HoDiffusion(lambda x, t: net(x), betas_to_deltas(betas), T)
    np.testing.assert_allclose(bridge.process.alpha_bar, schedule.alphas_cumprod, rtol=1e-12)
    table = ddpm(schedule, "eps", T, variance="fixed_large", clip=None)
    x, noise = torch.randn(2, 3, 2, 5)
    with torch.no_grad():
        for k, t in enumerate(range(T - 1, -1, -1)):
            found, eps = bridge.prior_onestep_sample(x, t, noise), net(x)
            beta, left = betas[t], 1 - schedule.alphas_cumprod[t]
            by_hand = (x - beta / left**0.5 * eps) / (1 - beta) ** 0.5 + (t > 0) * beta**0.5 * noise
            x0 = table["u_x"][k] * x + table["u_m"][k] * eps
            row = table["b"][k] * x + table["a"][k] * x0 + table["s"][k] * noise
            torch.testing.assert_close(found, by_hand, atol=2e-6, rtol=2e-6)
            torch.testing.assert_close(found, row, atol=2e-6, rtol=2e-6)
            x = found
        weights = torch.linspace(0, 1, 6).reshape(3, 2, 1).expand(3, 2, 5)
        loss = bridge.compute_loss(weights, torch.tensor([0, 20, 49]), noise)
        x_t = [
            schedule.alphas_cumprod[t] ** 0.5 * w + (1 - schedule.alphas_cumprod[t]) ** 0.5 * n
            for t, w, n in zip([0, 20, 49], weights, noise, strict=True)
        ]
        assert float(loss) == pytest.approx(float((net(torch.stack(x_t)) - noise).square().mean()), rel=1e-6)


def test_a_toy_process_has_the_published_numbers() -> None:
    process = bridge_of(2.0, 0.01, 0.0).process
    assert process.scale**2 == pytest.approx(0.0025)
    toy = DiffusionBridge(lambda x, t: x, torch.full((100,), 0.015), 100, 2, 0.01, 0.0).process
    assert toy.beta[0] == pytest.approx(0.0582355, rel=1e-6)
    assert toy.alpha_bar[-1] == pytest.approx(2.478752e-3, rel=1e-6)


def test_usage_block_of_the_original_readme() -> None:
    """The class of its README, word for word but for the import."""

    class HoDiffusion(DiffusionBridge):
        """DDPM as defined in Ho https://arxiv.org/pdf/2006.11239.pdf."""

        theta = 1
        eta2 = 2
        diffusion_target = 0

        def __init__(
            self,
            denoising_model: callable,  # type: ignore[valid-type]
            delta_schedule: torch.Tensor,
            num_steps: int,
        ):
            super().__init__(
                denoising_model=denoising_model,
                delta_schedule=delta_schedule,
                num_steps=num_steps,
                theta=self.theta,
                eta2=self.eta2,
                diffusion_target=self.diffusion_target,
            )

    ho = HoDiffusion(lambda x, t: 0 * x, DELTA, 12)
    assert ho.prior_sample((2, 3)).shape == (2, 3)
    assert ho.compute_loss(torch.zeros(64, 3)).item() == pytest.approx(1.0, abs=0.5)


def test_compat_has_the_original_indexing() -> None:
    new, old = (bridge_of(1.0, 2.0, 0.5, compat=compat) for compat in (False, True))
    x, eps = torch.randn(2, 3, 4)
    torch.testing.assert_close(old.posterior_sample(x, 5, eps), new.posterior_sample(x, 4, eps))
    with pytest.raises(ValueError, match=r"t must be in 1 \.\.\. 11, got 0"):
        old.posterior_sample(x, 0, eps)
    seen: list[int] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        seen.extend(t.tolist())
        return torch.zeros_like(x)

    old.denoising_model = watch
    mean, variance = old.prior_onestep_moments(x, 5, noise=eps)
    beta, left = old.process.beta[5], 1 - old.process.alpha_bar[5]
    torch.testing.assert_close(mean, (x - beta / left**0.5 * eps) / (1 - beta) ** 0.5, atol=1e-5, rtol=1e-5)
    assert old.prior_onestep_moments(x, 0)[1].min() > 0
    seen.clear()
    old.prior_sample((1, 4))
    assert seen == list(range(11, 0, -1))
    seen.clear()
    for _ in range(40):
        old.compute_loss(x)
    assert min(seen) == 1 and max(seen) == 11


def test_the_target_may_be_a_tensor() -> None:
    target = torch.tensor([1.0, -2.0]).reshape(2, 1)
    bridge = bridge_of(2.0, 0.5, target, shape=(2, 3))
    drawn = bridge.prior_initial_sample((5, 2, 3), torch.zeros(5, 2, 3))
    torch.testing.assert_close(drawn, target.expand(5, 2, 3))
    assert "target" in bridge.state_dict() and "target" not in bridge_of(2.0, 0.5, 0.0).state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": 0.0}, "theta must be finite and > 0, got 0"),
        ({"eta2": float("nan")}, "eta2 must be finite and > 0, got nan"),
        ({"num_steps": 5}, r"delta_schedule must have num_steps = 5 entries, got \(12,\)"),
        ({"delta_schedule": -DELTA}, "delta_schedule must be finite and > 0"),
        ({"delta_schedule": 1e5 * DELTA}, "delta_schedule must leave some signal"),
        ({"diffusion_target": float("inf")}, "diffusion_target must be finite"),
        (
            {"diffusion_target": torch.zeros(3), "shape": (4,)},
            r"must broadcast over a sample \(4,\), got \(3,\)",
        ),
        ({"diffusion_target": torch.zeros(2, 4), "shape": (4,)}, r"must broadcast over a sample \(4,\)"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    good = {"delta_schedule": DELTA, "num_steps": 12, "theta": 1.0, "eta2": 2.0, "diffusion_target": 0.0}
    with pytest.raises(ValueError, match=f"DiffusionBridge: .*{message}"):
        DiffusionBridge(lambda x, t: x, **{**good, **change})


def test_wrong_times_and_networks_are_named() -> None:
    bridge, x = bridge_of(1.0, 2.0, 0.0), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"t must be in 0 \.\.\. 11, got 12"):
        bridge.prior_onestep_sample(x, 12)
    with pytest.raises(ValueError, match=r"t must be one time or \(3,\), got \(2,\)"):
        bridge.posterior_sample(x, torch.tensor([1, 2]))
    with pytest.raises(TypeError, match="denoising_model must be callable, got int"):
        DiffusionBridge(3, DELTA, 12, 1.0, 2.0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"diffusion_target must broadcast over a sample \(2,\), got \(5,\)"):
        bridge_of(1.0, 2.0, torch.zeros(5)).posterior_sample(x, 1)
