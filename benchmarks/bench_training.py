"""A training step of the shipped model through our ops, against the same step on plain torch.

Batch 64, float32, AdamW, gradient clipped: the step of `fastdiff train` without reading images. The rivals are the
same network under `use_backend("torch")` and, faster, the same network whose norms are plain torch expressions and
whose noise is `torch.randn`, eager and compiled. A foreign network (lucidrains' Unet) trains through
`backend="fastdiff"` as eager torch runs it, since the engine serves inference: the second row shows what that costs.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fastdiff
from benchmarks.networks import built
from fastdiff.nn import RMSNormSiLU
from fastdiff.ops import add_noise
from fastdiff.ops.dispatch import use_backend

BATCH = 64
Noise = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def plain_norm(
    self: RMSNormSiLU, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    x = functional.normalize(x, dim=1, eps=self.eps) * (self.weight * x.shape[1] ** 0.5)[:, None, None]
    if scale is not None:
        x = x * (scale[:, :, None, None] + 1)
    if shift is not None:
        x = x + shift[:, :, None, None]
    return functional.silu(x) if self.activate else x


def with_plain_norms(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, RMSNormSiLU):
            module.forward = types.MethodType(plain_norm, module)
    return net


def our_noise(x0: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return add_noise(x0, alpha, sigma, seeds=torch.arange(len(x0)), return_noise=True)


def plain_noise(x0: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    noise = torch.randn_like(x0)
    return alpha[:, None, None, None] * x0 + sigma[:, None, None, None] * noise, noise


class Step:
    """One optimizer step on a batch of its own, v prediction; returns the loss."""

    def __init__(self, model: fastdiff.Model, net: nn.Module, noise: Noise) -> None:
        generator = torch.Generator().manual_seed(0)
        self.net, self.noise = net.train(), noise
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)
        self.x0 = torch.rand((BATCH, *model.shape), generator=generator) * 2 - 1
        self.labels = torch.randint(0, 10, (BATCH,), generator=generator)
        self.t = torch.randint(0, model.schedule.T, (BATCH,), generator=generator)
        self.alpha = torch.from_numpy(model.schedule.alpha(self.t.numpy())).float()
        self.sigma = torch.from_numpy(model.schedule.sigma(self.t.numpy())).float()

    def loss(self) -> Tensor:
        x, noise = self.noise(self.x0, self.alpha, self.sigma)
        alpha, sigma = self.alpha[:, None, None, None], self.sigma[:, None, None, None]
        wanted = alpha * noise - sigma * self.x0
        m = self.net(x.contiguous(memory_format=torch.channels_last), self.t, labels=self.labels)
        return (m - wanted).square().mean()

    def __call__(self) -> Tensor:
        loss = self.loss()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()


def bench_training_step(duel):
    model = fastdiff.load("fashion")
    nets = [copy.deepcopy(model.net).requires_grad_().to(memory_format=torch.channels_last) for _ in range(3)]
    ours, plain = Step(model, nets[0], our_noise), Step(model, with_plain_norms(nets[1]), plain_noise)
    forced = Step(model, nets[2], our_noise)

    def on_torch() -> Tensor:
        with use_backend("torch"):
            return forced()

    by_inductor = with_plain_norms(copy.deepcopy(nets[1]))
    compiled = Step(model, by_inductor, plain_noise)
    by_inductor.forward = torch.compile(by_inductor.forward, dynamic=False)  # type: ignore[method-assign]

    def check() -> None:
        compiled()
        plain.noise = our_noise
        torch.testing.assert_close(ours.loss(), plain.loss(), rtol=1e-4, atol=1e-5)
        plain.noise = plain_noise

    duel(
        "training step, fashion, batch 64",
        {"fastdiff": ours, "plain torch": plain, 'use_backend("torch")': on_torch, "torch.compile": compiled},
        check=check,
        rounds=8,
        shape=(BATCH, *model.shape),
        bar={"plain torch": 1.2, 'use_backend("torch")': 1.2},
    )


def bench_training_step_lucidrains(duel):
    """Unet(dim 64) of denoising-diffusion-pytorch at 64x64, batch 4, predicting the noise."""
    try:
        nets = [built("lucidrains Unet(64) 64x64").train() for _ in range(3)]
    except ImportError as error:
        pytest.skip(f"{error.name} is not installed")
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(4, 3, 64, 64, generator=generator) * 2 - 1
    t, alpha = torch.tensor([50, 300, 600, 900]), torch.tensor([0.99, 0.8, 0.5, 0.1])
    sigma = (1 - alpha.square()).sqrt()

    def step(net: nn.Module, forward: Callable[..., Tensor], noise: Noise) -> Callable[[], Tensor]:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6, fused=True)

        def run() -> Tensor:
            x, wanted = noise(x0, alpha, sigma)
            loss = (forward(x, t) - wanted).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return run

    ours = step(nets[0], torch.compile(nets[0], backend="fastdiff"), our_noise)
    same = step(nets[1], nets[1], our_noise)
    eager = step(nets[1], nets[1], plain_noise)
    inductor = step(nets[2], torch.compile(nets[2], dynamic=False), plain_noise)

    def check() -> None:
        torch.testing.assert_close(ours(), same(), rtol=1e-3, atol=1e-4)

    duel(
        "training step, lucidrains Unet(64) 64x64, batch 4",
        {"fastdiff": ours, "torch eager": eager, "torch.compile": inductor},
        check=check,
        rounds=5,
        shape=tuple(x0.shape),
    )
