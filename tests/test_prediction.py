"""Readings of a network's output agree with each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff.prediction import (
    PREDICTIONS,
    check_prediction,
    convert,
    eps_coefficients,
    input_scale,
    loss_weight,
    parts,
    target,
    told_time,
    x0_coefficients,
)

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
    with pytest.raises(ValueError, match="eps, x0, v, flow, score, edm, got 'noise'"):
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
        ("flow", None): [0, 0.25 / 2.25, 5 / (1 + 5**0.5) ** 2, 20 / (1 + 20**0.5) ** 2, 1],
        ("score", None): [1, 0.8, 1 / 6, 1 / 21, 0],
        ("edm", None): [0, 0.0625 / 1.0625, 1.25 / 2.25, 5 / 6, 1],
        ("edm:2.0", 5.0): [0, 0.5, 20 / 21, 20 / 81, 0],
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


@pytest.mark.parametrize("goal", [*PREDICTIONS, "edm:1.3"])
@pytest.mark.parametrize("source", [*PREDICTIONS, "edm:1.3"])
@pytest.mark.parametrize(("alpha", "sigma"), LEVELS)
def test_conversions(source: str, goal: str, alpha: float, sigma: float) -> None:
    """A converted output is the other network's own, and there and back is the identity."""
    x0, eps = np.random.default_rng(0).standard_normal((2, 50))
    x = alpha * x0 + sigma * eps
    outputs = {p: parts(p, alpha, sigma)[0] * x0 + parts(p, alpha, sigma)[1] * eps for p in (source, goal)}
    k_x, k_m = convert(source, goal, alpha, sigma)
    rounding = 1e-15 * (abs(k_x) * np.abs(x).max() + abs(k_m) * np.abs(outputs[source]).max())
    np.testing.assert_allclose(k_x * x + k_m * outputs[source], outputs[goal], rtol=0, atol=8 * rounding)
    back_x, back_m = convert(goal, source, alpha, sigma)
    assert back_m * k_m == pytest.approx(1.0, rel=1e-12)
    assert back_x + back_m * k_x == pytest.approx(0.0, abs=1e-12 * (abs(back_x) + 1))


def test_edm_is_karras_table() -> None:
    """D = c_skip y + c_out F(c_in y, log(sigma) / 4), table 1 of arXiv 2206.00364."""
    sigma, spread = 1.7, 0.5
    norm = sigma**2 + spread**2
    c_skip, c_out, c_in = spread**2 / norm, sigma * spread / norm**0.5, 1 / norm**0.5
    assert x0_coefficients("edm", 1.0, sigma) == pytest.approx((c_skip, c_out), rel=1e-15)
    assert input_scale("edm", 1.0, sigma) == pytest.approx(c_in, rel=1e-15)
    assert told_time("edm", 3.0, -2 * np.log(sigma)) == pytest.approx(np.log(sigma) / 4, rel=1e-15)
    assert (input_scale("v", 1.0, sigma), told_time("v", 3.0, 1.0)) == (1.0, 3.0)
    scaled = x0_coefficients("edm", 0.3, 0.3 * sigma)
    assert (0.3 * scaled[0], scaled[1]) == pytest.approx((c_skip, c_out), rel=1e-15)


def test_ends_of_flow_score_and_edm() -> None:
    assert x0_coefficients("flow", 0.0, 1.0) == (1.0, -1.0)
    assert eps_coefficients("flow", 1.0, 0.0) == (1.0, 1.0)
    assert x0_coefficients("edm", 0.0, 1.0) == (0.0, 0.5)
    assert eps_coefficients("edm", 1.0, 0.0) == (0.0, -1.0)
    assert x0_coefficients("edm", 1.0, 0.0) == (1.0, 0.0)
    assert x0_coefficients("score", 1.0, 0.0) == (1.0, 0.0)
    assert eps_coefficients("score", 0.0, 1.0) == (0.0, -1.0)
    assert convert("v", "edm", 0.0, 1.0) == (0.0, -2.0)
    assert convert("edm", "v", 1.0, 0.0) == (0.0, -1.0)
    for wrong in (
        lambda: eps_coefficients("score", 1.0, 0.0),
        lambda: x0_coefficients("score", 0.0, 1.0),
        lambda: convert("x0", "flow", 1.0, 0.0),
        lambda: convert("eps", "v", 0.0, 1.0),
        lambda: convert("eps", "score", 1.0, 0.0),
        lambda: told_time("edm", 0.0, np.inf),
    ):
        with pytest.raises(ValueError, match="prediction: must .*(alpha is 0|sigma is 0)"):
            wrong()


@pytest.mark.parametrize("name", ["edm:", "edm:0", "edm:-1", "edm:nan", "edm:x", "v:1.0", "edm:inf", 3])
def test_sigma_data_that_cannot_be_read(name) -> None:
    with pytest.raises(ValueError, match="prediction must be one of"):
        check_prediction(name)
