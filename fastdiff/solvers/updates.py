"""The linear updates solvers are made of, as columns of a row.

All of them are exact at both ends: at the clean level the state is x0, and where alpha is 0 nothing is divided by it.
Solvers think in `y = x / alpha`, whose noise level is `ratio = sigma / alpha`, and whose slope in it is eps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastdiff.ops.row import Push
from fastdiff.solvers.grid import Level

Columns = dict[str, float]


def towards(now: Level, then: Level) -> Columns:
    """Keep eps, exchange the level: x' = alpha' x0 + sigma' eps (an Euler step in `ratio`; DDIM)."""
    b = then.sigma / now.sigma
    return {"b": b, "a": then.alpha - b * now.alpha}


def ancestral(now: Level, then: Level, eta: float = 1.0) -> Columns:
    """As `towards`, with a part of the noise drawn anew: x' = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s noise.

    At eta = 1 this is the posterior q(x' | x, x0) of DDPM, and s the ancestral step of k-diffusion.
    """
    share = now.share_of_noise(then)
    b = then.sigma / now.sigma * (1.0 - eta**2 * share) ** 0.5
    return {"b": b, "a": then.alpha - b * now.alpha, "s": eta * share**0.5 * then.sigma}


def by_x0(now: Level, then: Level, weights: Sequence[float], index: int, decay: float = 0.0) -> Columns:
    """x' = (sigma' / sigma) e x + alpha' sum_k weights[k] x0_k, over this and earlier estimates of x0.

    With e = exp(-decay h), h the step in log(alpha / sigma), and sigma' sqrt(1 - e^2) noise.

    Args:
        now: Level of the state.
        then: Level it goes to.
        weights: For this row's x0, the one before, ... (at most 4).
        index: Step of the solver; x0 of step i lies in slot i mod 3.
        decay: Strength of the noise; 0 is none, 1 the reverse SDE.
    """
    own, older = then.alpha * weights[0], [then.alpha * w for w in weights[1:]]
    step = {"b": then.sigma / now.sigma, "a": own, **_ring(older, index, Push.X0)}
    if decay == 0:
        return step
    faded = float(np.exp(-decay * (then.lam - now.lam)))
    return {**step, "b": step["b"] * faded, "s": then.sigma * (1 - faded**2) ** 0.5}


def by_eps(now: Level, then: Level, weights: Sequence[float], index: int) -> Columns:
    """y' = y + sum_k weights[k] eps_k, over this and earlier estimates of the noise.

    Args:
        now: Level of the state; where its alpha is 0 the step is Euler's whatever the weights.
        then: Level it goes to.
        weights: For this row's eps, the one before, ... (at most 4), in units of `ratio`.
        index: Step of the solver; eps of step i lies in slot i mod 3.
    """
    if now.alpha == 0:
        return {**towards(now, then), **pushed_eps(now), **_ring([], index, Push.EPS)}
    own, older = then.alpha * weights[0], [then.alpha * w for w in weights[1:]]
    step = {"b": then.alpha / now.alpha + own / now.sigma, "a": -own * now.alpha / now.sigma}
    return {**step, **pushed_eps(now), **_ring(older, index, Push.EPS)}


def pushed_eps(now: Level) -> Columns:
    """What a pushed eps is: re-derived from the clamped x0, whatever the network returns."""
    return {"p_x": 1.0 / now.sigma, "p_0": -now.alpha / now.sigma}


def _ring(older: Sequence[float], index: int, what: Push) -> Columns:
    """Reads of the steps before, newest first, and the push of this one, in a ring of three slots."""
    reads: Columns = {}
    for k, weight in enumerate(older):
        reads |= {f"h_{k}": float(weight), f"slot_{k}": (index - 1 - k) % RING}
    return {**reads, "push_0": float(what), "push_0_slot": index % RING}


RING = 3


def polynomial_integrals(nodes: Sequence[float], start: float, stop: float) -> np.ndarray:
    """Integrals from start to stop of the Lagrange polynomials of `nodes`: weights of an Adams-Bashforth step."""
    shifted = (np.asarray(nodes, dtype=np.float64) - start) / (stop - start)
    powers = np.arange(len(shifted))
    return (stop - start) * np.linalg.solve(np.vander(shifted, increasing=True).T, 1.0 / (powers + 1))


def exponential_integrals(nodes: Sequence[float], start: float, stop: float, rate: int) -> np.ndarray:
    """Integrals from start to stop of the Lagrange polynomials of `nodes` in u, times an exponential.

    The exponential is exp(u - stop) for rate 1, exp(start - u) for rate -1. With nodes in log(alpha / sigma) the first
    gives the weights of x0, the second (times -ratio) those of eps, in an exact exponential Adams step.
    """
    h = stop - start
    shifted = (np.asarray(nodes, dtype=np.float64) - start) / h
    moments = exponential_moments(h, len(shifted), rate)
    return np.linalg.solve(np.vander(shifted, increasing=True).T, moments)


def exponential_moments(h: float, count: int, rate: int = 1) -> np.ndarray:
    """h times the integral over r in [0, 1] of r^n exp((r - 1) h) (rate 1) or r^n exp(-r h) (rate -1), n < count."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    pieces = max(1, int(np.ceil(h / 8)))
    r = (np.add.outer(np.arange(pieces), (nodes + 1) / 2) / pieces).ravel()
    w = np.tile(weights / 2, pieces) / pieces * np.exp((r - 1) * h if rate > 0 else -r * h)
    return np.array([h * np.sum(w * r**n) for n in range(count)])
