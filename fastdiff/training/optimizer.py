"""AdamW and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastdiff.training.config import RunConfig


def make_optimizer(net: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices and convolutions only, not on biases and gains."""
    params = list(net.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: RunConfig, step: int) -> float:
    """Learning rate of step `step` (from 0): linear warm-up, then half a cosine to 0, or constant."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.lr_schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def optimizer_tensors(optimizer: torch.optim.Optimizer, net: nn.Module) -> dict[str, Tensor]:
    """State of the optimizer as `<parameter>/<kind>` -> tensor."""
    return {f"{n}/{kind}": v for n, p in net.named_parameters() for kind, v in optimizer.state[p].items()}


@torch.no_grad()
def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, net: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took, in the memory format of each parameter."""
    params = dict(net.named_parameters())
    for key, value in tensors.items():
        name, kind = key.rsplit("/", 1)
        param = params[name]
        held = value.clone() if kind == "step" else torch.empty_like(param).copy_(value)
        optimizer.state[param][kind] = held.to(param.device) if kind == "step" else held
