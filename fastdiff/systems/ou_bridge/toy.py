"""The toy of the bridges: sequences of codes on a circle, each code a neighbour of the one before.

Eight codes lie evenly on the unit circle. A sequence starts anywhere and goes one code on or back at every position,
with a little noise; a bridge over the points learns the sequences, a spherical codebook names the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn import sinusoidal
from fastdiff.nn.codebook import SphericalCodebook
from fastdiff.systems.ou_bridge.bridge import DiffusionBridge
from fastdiff.systems.ou_bridge.process import Process


class ToyNet(nn.Module):
    """Noise of points (B, d, L) at times (B,): gain, conv1, residual blocks of SiLU-conv3-SiLU-conv3, SiLU, conv1.

    The points shrink by a factor of ten on their way to the target; the gain of each time makes them unit size, so
    that the network sees as well at the end, where neighbours are decided, as at the beginning.

    Args:
        gains: (T,) factor on the points at each time, see `unit_gains`.
        dim: d.
        width: channels inside.
        blocks: residual blocks; each carries what is known two positions further.
    """

    gains: Tensor

    def __init__(
        self, gains: Tensor | Sequence[float], dim: int = 2, width: int = 64, blocks: int = 3
    ) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("gains", torch.as_tensor(gains, dtype=torch.float32))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Conv1d(dim, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(part for _ in range(2) for part in (nn.SiLU(), nn.Conv1d(width, width, 3, padding=1)))
            )
            for _ in range(blocks)
        )
        self.leave = nn.Conv1d(width, dim, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, d, L) to (B, d, L)."""
        time = self.time(sinusoidal(10 * t, self.width))[:, :, None]
        h = self.enter(self.gains[t][:, None, None] * x)
        for block in self.blocks:
            h = h + block(h + time)
        return self.leave(functional.silu(h))


def unit_gains(process: Process, dim: int = 2) -> Tensor:
    """(T,) factors that give points which start on the unit sphere of R^dim unit variance at each time."""
    return torch.from_numpy((process.signal**2 / dim + process.spread**2) ** -0.5).float()


class ToyModel(DiffusionBridge):
    """A bridge to 0 with stationary variance 0.0025 and a spherical codebook of K codes.

    Args:
        denoising_model: as in `DiffusionBridge`.
        delta_schedule: (T,); the toy takes 0.015 for each of 100 steps.
        num_steps: T.
        K: number of codes; in two dimensions they start evenly on the circle.
        dim: width of a code.
    """

    theta = 2.0
    eta2 = 0.01
    diffusion_target = 0.0

    def __init__(
        self,
        denoising_model: Callable[..., Tensor],
        delta_schedule: Tensor | Sequence[float],
        num_steps: int,
        K: int = 8,
        dim: int = 2,
    ) -> None:
        super().__init__(
            denoising_model, delta_schedule, num_steps, self.theta, self.eta2, self.diffusion_target
        )
        self.codebook = SphericalCodebook(K, dim)
        if dim == 2:
            self.codebook.weight.data.copy_(circle(K))

    def discretise(self, x: Tensor) -> Tensor:
        """The code (B, L) of each point of x (B, d, L)."""
        return self.codebook(x.transpose(1, 2)).indices


def circle(K: int) -> Tensor:
    """(K, 2): K points evenly on the unit circle."""
    angle = torch.arange(K) * (2 * torch.pi / K)
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def circle_sequences(
    num: int, K: int = 8, length: int = 5, noise: float = 0.05, generator: torch.Generator | None = None
) -> Tensor:
    """Noisy points (num, 2, length) of sequences X_0 uniform, X_{i+1} = X_i + 1 or X_i - 1 modulo K."""
    first = torch.randint(0, K, (num, 1), generator=generator)
    steps = 2 * torch.randint(0, 2, (num, length - 1), generator=generator) - 1
    codes = torch.cat((first, first + steps.cumsum(1)), dim=1) % K
    points = circle(K)[codes].transpose(1, 2)
    return points + noise * torch.randn(points.shape, generator=generator)


def sequence_kl(codes: Tensor, K: int = 8) -> float:
    """KL(true | drawn) in nats between the law of whole sequences and the frequencies of codes (N, L).

    All K 2^(L-1) sequences are equally likely; what was drawn outside of them counts as missing. A possible sequence
    that was never drawn makes it infinite. It is biased upwards by about (K 2^(L-1) - 1) / 2N.
    """
    num, length = codes.shape
    steps = (codes[:, 1:] - codes[:, :-1]) % K
    possible = ((steps == 1) | (steps == K - 1)).all(1)
    places = 2 ** torch.arange(length - 1, device=codes.device)
    number = codes[:, 0] * 2 ** (length - 1) + ((steps == 1) * places).sum(1)
    count = torch.bincount(number[possible], minlength=K * 2 ** (length - 1)).double()
    return float(-(count / num * len(count)).log().mean())
