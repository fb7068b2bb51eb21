"""What a network's output `m` means: noise, clean data, or a mixture of both.

    "eps"    m = eps
    "x0"     m = x0
    "v"      m = alpha * eps - sigma * x0          (Salimans and Ho 2022, arXiv 2202.00512)
    "flow"   m = eps - x0                          (rectified flow, Liu et al. 2023, arXiv 2209.03003)
    "score"  m = -eps / sigma                      (Song et al. 2021, arXiv 2011.13456)
    "edm"    x0 = c_skip * y + c_out * m           (Karras et al. 2022, arXiv 2206.00364, table 1)

with `x = alpha * x0 + sigma * eps` and `y = x / alpha`. An "edm" network is given `c_in * y` for its input and
`c_noise = log(sigma / alpha) / 4` for its time; "edm" stands for sigma_data = 0.5, "edm:1.0" for another one.
Each reading is linear in (x, m); this module holds the coefficients, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

PREDICTIONS: tuple[str, ...] = ("eps", "x0", "v", "flow", "score", "edm")
#: Those whose network is given the state and the time as they are.
PLAIN: tuple[str, ...] = ("eps", "x0", "v", "flow", "score")
SIGMA_DATA = 0.5
Weight = TypeVar("Weight", Tensor, np.ndarray)
Pair = tuple[float, float]


def check_prediction(prediction: str, place: str = "prediction", known: Sequence[str] = PREDICTIONS) -> str:
    """Return `prediction` when it is one of `known`, else raise a ValueError that lists them."""
    if not isinstance(prediction, str) or _name(prediction) not in known or not sigma_data(prediction) > 0:
        raise ValueError(f"{place}: prediction must be one of {', '.join(known)}, got {prediction!r}")
    return prediction


def sigma_data(prediction: str) -> float:
    """The standard deviation of the data that an "edm" network assumes; NaN for what cannot be read."""
    name, colon, number = prediction.partition(":")
    if not colon:
        return SIGMA_DATA
    try:
        return float(number) if name == "edm" and math.isfinite(float(number)) else math.nan
    except ValueError:
        return math.nan


def x0_coefficients(prediction: str, alpha: float, sigma: float) -> Pair:
    """(u_x, u_m) of `x0 = u_x * x + u_m * m` at one noise level.

    Raises:
        ValueError: for an eps or score network where alpha is 0: pure noise says nothing about the data.
    """
    name = _name(check_prediction(prediction))
    if name == "x0":
        return 0.0, 1.0
    if name == "v":
        norm = alpha**2 + sigma**2
        return alpha / norm, -sigma / norm
    if name == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if name == "edm":
        spread, norm = _edm(prediction, alpha, sigma)
        return spread**2 * alpha / norm**2, spread * sigma / norm
    if alpha == 0:
        raise ValueError(
            f"prediction: must be x0 or v where alpha is 0 (zero terminal SNR), got {prediction!r}"
        )
    return 1.0 / alpha, (sigma**2 if name == "score" else -sigma) / alpha


def eps_coefficients(prediction: str, alpha: float, sigma: float) -> Pair:
    """(p_x, p_m) of `eps = p_x * x + p_m * m` at one noise level.

    Raises:
        ValueError: for an x0 or score network where sigma is 0: clean data says nothing about the noise.
    """
    name = _name(check_prediction(prediction))
    if name == "eps":
        return 0.0, 1.0
    if name == "v":
        norm = alpha**2 + sigma**2
        return sigma / norm, alpha / norm
    if name == "flow":
        return 1 / (alpha + sigma), alpha / (alpha + sigma)
    if name == "edm":
        spread, norm = _edm(prediction, alpha, sigma)
        return sigma / norm**2, -alpha * spread / norm
    if sigma == 0:
        raise ValueError(f"prediction: must be eps or v where sigma is 0 (clean data), got {prediction!r}")
    return (0.0, -sigma) if name == "score" else (1.0 / sigma, -alpha / sigma)


def parts(prediction: str, alpha: float, sigma: float) -> Pair:
    """(m_0, m_e) of `m = m_0 * x0 + m_e * eps` at one noise level: what the network should return.

    Raises:
        ValueError: for a score network where sigma is 0: the score of clean data is infinite.
    """
    name = _name(check_prediction(prediction))
    if name == "score" and sigma == 0:
        raise ValueError(f"prediction: must not be score where sigma is 0 (clean data), got {prediction!r}")
    if name == "score":
        return 0.0, -1.0 / sigma
    if name == "edm":
        spread, norm = _edm(prediction, alpha, sigma)
        return sigma / (spread * norm), -spread * alpha / norm
    return {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-sigma, alpha), "flow": (-1.0, 1.0)}[name]


def convert(source: str, goal: str, alpha: float, sigma: float) -> Pair:
    """(k_x, k_m) of `m_goal = k_x * x + k_m * m_source`: one network's output in the words of another.

    Raises:
        ValueError: where the source does not say what the goal asks for (eps or score at alpha = 0, x0 at sigma = 0).
    """
    if source == check_prediction(goal):
        return 0.0, 1.0
    of_x0, of_eps = parts(goal, alpha, sigma)
    nothing = (0.0, 0.0)
    u_x, u_m = x0_coefficients(source, alpha, sigma) if of_x0 else nothing
    p_x, p_m = eps_coefficients(source, alpha, sigma) if of_eps else nothing
    return of_x0 * u_x + of_eps * p_x, of_x0 * u_m + of_eps * p_m


def input_scale(prediction: str, alpha: float, sigma: float) -> float:
    """What the state x is multiplied by before the network sees it: 1, or c_in / alpha of an "edm" network."""
    return 1.0 / _edm(prediction, alpha, sigma)[1] if _name(prediction) == "edm" else 1.0


def told_time(prediction: str, t: float, log_snr: float) -> float:
    """What the network is told: the time, or c_noise of an "edm" network.

    Raises:
        ValueError: for an "edm" network at pure noise or clean data, where c_noise is infinite.
    """
    if _name(prediction) != "edm":
        return t
    if not math.isfinite(log_snr):
        raise ValueError(
            f"prediction: must be x0 or v where alpha is 0 or sigma is 0 (c_noise is infinite), got {prediction!r}"
        )
    return -log_snr / 8


def target(prediction: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a network of this prediction is trained to return.

    Args:
        prediction: One of `PREDICTIONS`.
        x0: Clean data (B, ...).
        eps: The noise that was added, same shape.
        alpha: Signal coefficient, (B,) or anything that broadcasts against x0.
        sigma: Noise coefficient, likewise.

    Returns:
        Tensor of x0's shape.
    """
    name = _name(check_prediction(prediction))
    if name in ("eps", "x0", "flow"):
        return {"eps": eps, "x0": x0}.get(name, eps - x0)
    alpha, sigma = _per_sample(alpha, x0), _per_sample(sigma, x0)
    if name == "v":
        return alpha * eps - sigma * x0
    if name == "score":
        return -eps / sigma
    spread = sigma_data(prediction)
    return (sigma / spread * x0 - spread * alpha * eps) / (sigma**2 + (spread * alpha) ** 2) ** 0.5


def loss_weight(prediction: str, snr: Weight, min_snr_gamma: float | None = None) -> Weight:
    """Weight of the squared error so that every prediction trains the same objective.

    Without `min_snr_gamma` this is the plain loss of Ho et al. in eps units: 1, SNR, SNR / (SNR + 1) for eps, x0, v;
    SNR / (1 + sqrt(SNR))^2 for flow, 1 / (SNR + 1) for score (of a schedule with alpha^2 + sigma^2 = 1) and
    SNR d^2 / (1 + SNR d^2) for edm with sigma_data d. With it SNR is capped in the numerator (Hang et al. 2023,
    arXiv 2303.09556). Finite at SNR = 0 and, but for an uncapped x0 network, at SNR = inf.

    Args:
        prediction: One of `PREDICTIONS`.
        snr: alpha^2 / sigma^2, any shape, torch or numpy.
        min_snr_gamma: The cap, usually 5; None for no cap.
    """
    name = _name(check_prediction(prediction))
    gamma = float("inf") if min_snr_gamma is None else float(min_snr_gamma)
    if not gamma > 0:
        raise ValueError(f"loss_weight: min_snr_gamma must be > 0, got {min_snr_gamma}")
    if name == "x0":
        return snr.clip(max=gamma)
    capped, bounded = snr.clip(max=gamma), snr.clip(max=1e30)
    if name == "v":
        return (capped / (bounded + 1.0)).clip(max=1.0)
    if name == "flow":
        return (capped / (1.0 + bounded**0.5) ** 2).clip(max=1.0)
    if name == "edm":
        spread = sigma_data(prediction) ** 2
        return (capped * spread / (1.0 + bounded * spread)).clip(max=1.0)
    of_eps = _ones(snr) if gamma == float("inf") else (gamma / snr.clip(min=1e-30)).clip(max=1.0)
    return of_eps if name == "eps" else of_eps / (bounded + 1.0)


def _name(prediction: str) -> str:
    return prediction.partition(":")[0]


def _edm(prediction: str, alpha: float, sigma: float) -> Pair:
    """(sigma_data, sqrt(sigma^2 + (sigma_data alpha)^2)): all of Karras' coefficients, finite at both ends."""
    spread = sigma_data(prediction)
    return spread, math.hypot(sigma, spread * alpha)


def _ones(like: Weight) -> Weight:
    return torch.ones_like(like) if isinstance(like, Tensor) else np.ones_like(like)


def _per_sample(coefficient: Tensor, like: Tensor) -> Tensor:
    """A (B,) coefficient shaped to broadcast over the other axes of `like`."""
    if coefficient.ndim == 1 and like.ndim > 1:
        return coefficient.reshape(-1, *(1,) * (like.ndim - 1))
    return coefficient
