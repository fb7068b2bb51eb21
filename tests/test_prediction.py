"""Readings of a network's output agree with each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff.prediction import PREDICTIONS, eps_coefficients, loss_weight, target, x0_coefficients

LEVELS = [(0.6, 0.8), (1.0, 3.0), (0.3, 0.7), (1e-4, 1.0), (1.0, 1e-4)]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_coefficients_recover_x0_and_eps(prediction: str, alpha: float, sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    x = alpha * x0 + sigma * eps
    level = torch.tensor([alpha] * 4, dtype=torch.float64), torch.tensor([sigma] * 4, dtype=torch.float64)
    m = target(prediction, x0, eps, *level)
    u_x, u_m = x0_coefficients(prediction, alpha, sigma)
    p_x, p_m = eps_coefficients(prediction, alpha, sigma)
    scale = max(1 / alpha, 1 / sigma)
    torch.testing.assert_close(u_x * x + u_m * m, x0, rtol=0, atol=4e-15 * scale)
    torch.testing.assert_close(p_x * x + p_m * m, eps, rtol=0, atol=4e-15 * scale)


def test_ends() -> None:
    assert x0_coefficients("v", 0.0, 1.0) == (0.0, -1.0)
    assert x0_coefficients("x0", 0.0, 1.0) == (0.0, 1.0)
    assert x0_coefficients("eps", 1.0, 0.0) == (1.0, 0.0)
    assert eps_coefficients("v", 1.0, 0.0) == (0.0, 1.0)
    assert eps_coefficients("x0", 0.0, 1.0) == (1.0, 0.0)
    with pytest.raises(ValueError, match="x0 or v where alpha is 0"):
        x0_coefficients("eps", 0.0, 1.0)
    with pytest.raises(ValueError, match="eps or v where sigma is 0"):
        eps_coefficients("x0", 1.0, 0.0)


@pytest.mark.parametrize("call", [lambda p: x0_coefficients(p, 1, 1), lambda p: eps_coefficients(p, 1, 1)])
def test_unknown_prediction_lists_the_known(call) -> None:
    with pytest.raises(ValueError, match="eps, x0, v, got 'noise'"):
        call("noise")


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_loss_weight(kind) -> None:
    snr = kind(np.array([0.0, 0.25, 5.0, 20.0, np.inf]))
    expected = {
        ("eps", None): [1, 1, 1, 1, 1],
        ("eps", 5.0): [1, 1, 1, 0.25, 0],
        ("x0", 5.0): [0, 0.25, 5, 5, 5],
        ("x0", None): [0, 0.25, 5, 20, np.inf],
        ("v", None): [0, 0.2, 5 / 6, 20 / 21, 1],
        ("v", 5.0): [0, 0.2, 5 / 6, 5 / 21, 0],
    }
    for (prediction, gamma), values in expected.items():
        np.testing.assert_allclose(
            np.asarray(loss_weight(prediction, snr, gamma)), values, rtol=1e-12, atol=1e-25
        )
    with pytest.raises(ValueError, match="min_snr_gamma must be > 0"):
        loss_weight("eps", snr, 0.0)


def test_weights_make_every_loss_the_same() -> None:
    alpha, sigma = 0.6, 0.8
    snr = torch.tensor(alpha**2 / sigma**2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x0, eps, guess = torch.randn(3, 1, 5, generator=generator, dtype=torch.float64)
    x = alpha * x0 + sigma * eps
    guess_x0 = (x - sigma * guess) / alpha
    losses = [
        loss_weight(p, snr, 5.0)
        * (
            (
                target(p, x0, eps, *torch.tensor([[alpha], [sigma]], dtype=torch.float64))
                - target(p, guess_x0, guess, *torch.tensor([[alpha], [sigma]], dtype=torch.float64))
            )
            ** 2
        ).mean()
        for p in PREDICTIONS
    ]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])
