"""The diffusion of Ho et al. 2020 (arXiv 2006.11239) as a bridge: theta = 1, eta^2 = 2, target 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fastdiff.systems.ou_bridge.bridge import DiffusionBridge


class HoDiffusion(DiffusionBridge):
    """DDPM: stationary variance 1 around 0.

    Args:
        denoising_model: as in `DiffusionBridge`.
        delta_schedule: (T,); `betas_to_deltas` makes it of DDPM's betas.
        num_steps: T.
        shape: as in `DiffusionBridge`.
        compat: likewise.
    """

    theta = 1
    eta2 = 2
    diffusion_target = 0

    def __init__(
        self,
        denoising_model: Callable[..., Tensor],
        delta_schedule: Tensor | Sequence[float],
        num_steps: int,
        *,
        shape: Sequence[int] | None = None,
        compat: bool = False,
    ) -> None:
        super().__init__(
            denoising_model,
            delta_schedule,
            num_steps,
            self.theta,
            self.eta2,
            self.diffusion_target,
            shape=shape,
            compat=compat,
        )
