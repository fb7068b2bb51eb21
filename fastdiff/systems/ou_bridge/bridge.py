"""Diffusion bridges: an Ornstein-Uhlenbeck process that carries data to a target, and the network that leads back.

    dZ = -theta (Z - x*) dt + eta dW,  run for delta_t in step t; s^2 = eta^2 / (2 theta) is its stationary variance.

    alpha_t = exp(-2 theta delta_t)      beta_t = 1 - alpha_t      alpha_bar_t = alpha_0 ... alpha_t

    q(x_t | x_0)        = N(x* + sqrt(alpha_bar_t) (x_0 - x*), s^2 (1 - alpha_bar_t))
    q(x_t | x_{t-1})    = N(x* + sqrt(alpha_t) (x_{t-1} - x*), s^2 beta_t)
    p(x_{t-1} | x_t)    = N(x* + (x_t - x* - beta_t s / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t), s^2 beta_t)

Times are t = 0 ... T - 1, and x_{-1} is the data: the level that a label names in training is the one it names in
sampling. (Cohen et al. 2022, "Diffusion bridges vector quantized variational autoencoders", arXiv 2202.04895.)

In z = (x - x*) / s this is the variance-preserving chain of DDPM, so `fastdiff.sample(bridge, steps, shape=...)` draws
with any solver of `fastdiff.solvers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff import ops
from fastdiff.schedule import Schedule
from fastdiff.solvers import Anchor
from fastdiff.systems.ou_bridge.process import Process
from fastdiff.systems.ou_bridge.states import (
    checked_shape,
    drawn,
    fitted,
    noise_of,
    number_tensor,
    per_sample,
    state_of,
    times_of,
)

Moments = tuple[Tensor, Tensor]

#: Tables of the process; the first five are in the original's checkpoints (sigma2 is beta).
_STORED, _DERIVED = ("delta", "beta", "alpha", "alpha_bar", "sigma2"), ("signal", "spread", "removed")


class DiffusionBridge(nn.Module):
    """A bridge and its network.

    Args:
        denoising_model: called as f(x_t, t) with x_t (B, ...) and t (B,) int64; returns the noise, like x_t.
        delta_schedule: (T,) lengths of the steps, > 0.
        num_steps: T.
        theta: pull towards the target, > 0.
        eta2: eta^2, the strength of the noise, > 0.
        diffusion_target: x*, a number or a tensor that broadcasts over one sample.
        shape: of one sample, where `fastdiff.sample` is not to be told it each time.
        compat: do as the published code does: training draws t = 1 ... T - 1 and label t names level t - 1; the step
            back leaves x* out (right for x* = 0 only), adds noise at its last step, too, and stops at t = 1.
            `fastdiff.sample` takes the steps above all the same.

    States may be half precision: they are taken to float32. So are the tables of the process, whatever the module is
    cast to; a state dict of another process is refused.

    Raises:
        TypeError, ValueError: for an argument that does not fit.
    """

    prediction = "eps"
    delta: Tensor
    alpha: Tensor
    beta: Tensor
    alpha_bar: Tensor
    signal: Tensor
    spread: Tensor
    removed: Tensor
    target: Tensor

    def __init__(
        self,
        denoising_model: Callable[..., Tensor],
        delta_schedule: Tensor | Sequence[float],
        num_steps: int,
        theta: float,
        eta2: float,
        diffusion_target: Tensor | float,
        *,
        shape: Sequence[int] | None = None,
        compat: bool = False,
    ) -> None:
        super().__init__()
        if not callable(denoising_model):
            got = type(denoising_model).__name__
            raise TypeError(f"DiffusionBridge: denoising_model must be callable, got {got}")
        self.denoising_model, self.compat = denoising_model, compat
        strength = {name: float(number_tensor(v, name)) for name, v in (("theta", theta), ("eta2", eta2))}
        self.process = Process.of(delta_schedule, num_steps, **strength)
        if compat and num_steps < 2:
            raise ValueError(f"DiffusionBridge: num_steps must be >= 2 with compat, got {num_steps}")
        self.shape = None if shape is None else checked_shape(shape)
        for name in (*_STORED, *_DERIVED):
            self.register_buffer(name, self._table(name), persistent=name in _STORED)
        goal = number_tensor(diffusion_target, "diffusion_target").float()
        if not torch.isfinite(goal).all():
            raise ValueError("DiffusionBridge: diffusion_target must be finite, got NaN or infinite values")
        self.register_buffer("target", goal, persistent=goal.ndim > 0)
        if self.shape is not None:
            self._check_target(self.shape)

    def _table(self, name: str) -> Tensor:
        """A table of the process, (T,) float32 on the host."""
        values = getattr(self.process, "beta" if name == "sigma2" else name)
        return torch.from_numpy(values).float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DiffusionBridge:
        """Casts leave the tables as they are: 1 - 1e-4 is 1 in half precision."""
        super()._apply(fn, recurse)
        for name in (*_STORED, *_DERIVED):
            self._buffers[name] = self._table(name).to(self.alpha.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Tables of a state dict must be those of this process (up to their dtype), which stay."""
        errors: list[str] = rest[-1]
        for name in _STORED:
            own, given = self._table(name), state_dict.get(prefix + name)
            if given is None:
                continue
            if given.shape != own.shape or not torch.allclose(given.cpu().float(), own, rtol=0.01, atol=1e-6):
                errors.append(f"DiffusionBridge: {name} must be that of this process, got another to load")
            state_dict[prefix + name] = own.to(given.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # -- what `fastdiff.sample` asks for --------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        """The levels of z = (x - x*) / s."""
        return Schedule.from_alphas_cumprod(self.process.alpha_bar)

    @property
    def anchor(self) -> Anchor:
        """Target and stationary standard deviation."""
        return Anchor(self.target, self.process.scale)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's noise of states x (B, ...) at times t (B,), like x.

        Raises:
            ValueError: when the network returns another shape.
        """
        noise = self.denoising_model(x, t)
        if not isinstance(noise, Tensor) or noise.shape != x.shape:
            got = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            raise ValueError(
                f"DiffusionBridge: denoising_model must return noise like x, {tuple(x.shape)}, got {got}"
            )
        return noise

    # -- the process from the data to the target ------------------------------------------------------------------

    def posterior_sample(self, x: Tensor, t: Tensor | int, epsilon: Tensor | None = None) -> Tensor:
        """x_t ~ q(x_t | x_0) of data x (B, ...).

        Args:
            x: x_0.
            t: times, one or (B,); with `compat` 1 ... T - 1.
            epsilon: the noise, like x; None draws it from torch's generator.
        """
        x = state_of(x)
        k, noise = self._level(x, t), noise_of(x, epsilon)
        alpha, sigma = (c[k].to(x) for c in (self.signal, self.spread))
        return self._goal(x) + ops.add_noise(x - self._goal(x), alpha, sigma, noise=noise)

    def posterior_onestep_sample(self, x: Tensor, t: Tensor | int, epsilon: Tensor | None = None) -> Tensor:
        """x_t ~ q(x_t | x_{t-1}) of states x (B, ...); arguments as in `posterior_sample`."""
        x = state_of(x)
        k, goal = self._level(x, t), self._goal(x)
        mean = goal + per_sample(self.alpha[k].sqrt(), x) * (x - goal)
        return drawn(mean, self.process.scale**2 * per_sample(self.beta[k], x), epsilon)

    def bridge_posterior(self, x: Tensor, x0: Tensor, t: Tensor | int) -> Moments:
        """Mean (B, ...) and variance (B, 1, ...) of q(x_{t-1} | x_t, x_0); at t = 0 they are x_0 and 0.

        mean = x* + sqrt(abar_{t-1}) beta_t / (1 - abar_t) (x_0 - x*)
                  + sqrt(alpha_t) (1 - abar_{t-1}) / (1 - abar_t) (x_t - x*)
        variance = s^2 beta_t (1 - abar_{t-1}) / (1 - abar_t)
        """
        x, x0 = state_of(x), fitted(x, x0, "x0")
        columns = torch.from_numpy(self.process.bridge).to(x)[times_of(x, t, self.process.steps, 0)]
        of_x0, of_x, variance = (per_sample(c, x) for c in columns.unbind(1))
        goal = self._goal(x)
        return goal + of_x0 * (x0 - goal) + of_x * (x - goal), variance

    # -- the way back -----------------------------------------------------------------------------------------------

    def prior_initial_sample(self, shape: Sequence[int], epsilon: Tensor | None = None) -> Tensor:
        """x_T ~ N(x*, s^2) of shape (B, ...)."""
        empty = state_of(self.target.new_empty(checked_shape(shape)))
        variance = empty.new_tensor(self.process.scale**2)
        return drawn(self._goal(empty).expand_as(empty), variance, epsilon)

    def prior_onestep_moments(self, x: Tensor, t: Tensor | int, noise: Tensor | None = None) -> Moments:
        """Mean (B, ...) and variance (B, 1, ...) of p(x_{t-1} | x_t) of states x (B, ...) at times t.

        `noise` stands for the network's answer, where that is known.
        """
        x = state_of(x)
        k = times_of(x, t, self.process.steps, 0)
        eps = self(x, k).to(x) if noise is None else noise_of(x, noise)
        goal = torch.zeros_like(self._goal(x)) if self.compat else self._goal(x)
        mean = goal + (x - goal - per_sample(self.removed[k], x) * eps) / per_sample(self.alpha[k].sqrt(), x)
        variance = self.process.scale**2 * per_sample(self.beta[k], x)
        return mean, variance if self.compat else variance * per_sample((k > 0).to(x), x)

    def prior_onestep_sample(self, x: Tensor, t: Tensor | int, epsilon: Tensor | None = None) -> Tensor:
        """x_{t-1} ~ p(x_{t-1} | x_t); the step to the data (t = 0) adds no noise."""
        return drawn(*self.prior_onestep_moments(x, t), epsilon)

    @torch.no_grad()
    def prior_sample(self, shape: Sequence[int]) -> Tensor:
        """Data of shape (B, ...) by all T steps, with torch's generator; `fastdiff.sample` is the faster way."""
        x = self.prior_initial_sample(shape)
        for t in range(self.process.steps - 1, 0 if self.compat else -1, -1):
            x = self.prior_onestep_sample(x, t)
        return x

    # -- training ---------------------------------------------------------------------------------------------------

    def compute_loss(self, x: Tensor, t: Tensor | None = None, epsilon: Tensor | None = None) -> Tensor:
        """Mean squared error of the network's noise on data x (B, ...), a scalar.

        Args:
            x: x_0.
            t: (B,) times; None draws them evenly from torch's generator.
            epsilon: the noise, like x; None draws it.

        Raises:
            TypeError, ValueError: for an argument that does not fit, or no data.
        """
        x, first = state_of(x), 1 if self.compat else 0
        if not x.numel():
            raise ValueError(f"DiffusionBridge: x must hold data, got {tuple(x.shape)}")
        if t is None:
            t = torch.randint(first, self.process.steps, x.shape[:1], device=x.device)
        noise = noise_of(x, epsilon)
        x_t = self.posterior_sample(x, t, noise)
        return functional.mse_loss(self(x_t, times_of(x, t, self.process.steps, first)).to(x), noise)

    # -- arithmetic -------------------------------------------------------------------------------------------------

    def _level(self, x: Tensor, t: Tensor | int) -> Tensor:
        """(B,) levels that times name in the process towards the target."""
        first = 1 if self.compat else 0
        return times_of(x, t, self.process.steps, first) - first

    def _goal(self, x: Tensor) -> Tensor:
        """x* in the dtype and on the device of x."""
        self._check_target(tuple(x.shape[1:]))
        return self.target.to(x)

    def _check_target(self, shape: tuple[int, ...]) -> None:
        try:
            fits = torch.broadcast_shapes(self.target.shape, shape) == shape
        except RuntimeError:
            fits = False
        if not fits:
            got = tuple(self.target.shape)
            raise ValueError(
                f"DiffusionBridge: diffusion_target must broadcast over a sample {shape}, got {got}"
            )


def betas_to_deltas(betas: np.ndarray | Sequence[float], theta: float = 1.0) -> Tensor:
    """(T,) step lengths whose beta_t are those given: delta = -log(1 - beta) / (2 theta), float64.

    Raises:
        ValueError: for betas outside of (0, 1), or theta <= 0.
    """
    given = np.asarray(betas, dtype=np.float64)
    if not ((given > 0) & (given < 1)).all() or not theta > 0:
        raise ValueError(f"betas_to_deltas: betas must lie in (0, 1) and theta be > 0, got {betas}, {theta}")
    return torch.from_numpy(-np.log1p(-given) / (2 * theta))
