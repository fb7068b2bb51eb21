"""What a network's output `m` means: the noise, the clean data, or the velocity between them.

    "eps"  m = eps
    "x0"   m = x0
    "v"    m = alpha * eps - sigma * x0      (Salimans and Ho 2022)

with `x = alpha * x0 + sigma * eps`. Each reading is linear in (x, m); this module holds the coefficients, in float64.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

PREDICTIONS: tuple[str, ...] = ("eps", "x0", "v")
Weight = TypeVar("Weight", Tensor, np.ndarray)


def check_prediction(prediction: str, place: str = "prediction") -> str:
    """Return `prediction` when it is known, else raise a ValueError that lists the known ones."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"{place}: prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    return prediction


def x0_coefficients(prediction: str, alpha: float, sigma: float) -> tuple[float, float]:
    """(u_x, u_m) of `x0 = u_x * x + u_m * m` at one noise level.

    Raises:
        ValueError: for an eps network where alpha is 0: pure noise says nothing about the data.
    """
    check_prediction(prediction)
    if prediction == "x0":
        return 0.0, 1.0
    if prediction == "v":
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm
    if alpha == 0:
        raise ValueError("prediction: must be x0 or v where alpha is 0 (zero terminal SNR), got 'eps'")
    return 1.0 / alpha, -sigma / alpha


def eps_coefficients(prediction: str, alpha: float, sigma: float) -> tuple[float, float]:
    """(p_x, p_m) of `eps = p_x * x + p_m * m` at one noise level.

    Raises:
        ValueError: for an x0 network where sigma is 0: clean data says nothing about the noise.
    """
    check_prediction(prediction)
    if prediction == "eps":
        return 0.0, 1.0
    if prediction == "v":
        norm = alpha**2 + sigma**2
        return sigma / norm, alpha / norm
    if sigma == 0:
        raise ValueError("prediction: must be eps or v where sigma is 0 (clean data), got 'x0'")
    return 1.0 / sigma, -alpha / sigma


def target(prediction: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this prediction is trained to return.

    Args:
        prediction: "eps", "x0" or "v".
        x0: Clean data (B, ...).
        eps: The noise that was added, same shape.
        alpha: Signal coefficient, (B,) or anything that broadcasts against x0.
        sigma: Noise coefficient, likewise.

    Returns:
        Tensor of x0's shape.
    """
    check_prediction(prediction)
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    return _per_sample(alpha, x0) * eps - _per_sample(sigma, x0) * x0


def loss_weight(prediction: str, snr: Weight, min_snr_gamma: float | None = None) -> Weight:
    """Weight of the squared error so that every prediction trains the same objective.

    Without `min_snr_gamma` this is the plain loss of Ho et al. in eps units: 1, SNR, SNR / (SNR + 1) for eps, x0, v;
    with it SNR is capped in the numerator (Hang et al. 2023, arXiv 2303.09556). Finite at SNR = 0 and, but for an
    uncapped x0 network, at SNR = inf.

    Args:
        prediction: "eps", "x0" or "v".
        snr: alpha^2 / sigma^2, any shape, torch or numpy.
        min_snr_gamma: The cap, usually 5; None for no cap.
    """
    check_prediction(prediction)
    gamma = float("inf") if min_snr_gamma is None else float(min_snr_gamma)
    if not gamma > 0:
        raise ValueError(f"loss_weight: min_snr_gamma must be > 0, got {min_snr_gamma}")
    if prediction == "x0":
        return snr.clip(max=gamma)
    if prediction == "eps":
        return _ones(snr) if gamma == float("inf") else (gamma / snr.clip(min=1e-30)).clip(max=1.0)
    capped = snr.clip(max=gamma) / (snr.clip(max=1e30) + 1.0)
    return capped.clip(max=1.0)


def _ones(like: Weight) -> Weight:
    return torch.ones_like(like) if isinstance(like, Tensor) else np.ones_like(like)


def _per_sample(coefficient: Tensor, like: Tensor) -> Tensor:
    """A (B,) coefficient shaped to broadcast over the other axes of `like`."""
    if coefficient.ndim == 1 and like.ndim > 1:
        return coefficient.reshape(-1, *(1,) * (like.ndim - 1))
    return coefficient
