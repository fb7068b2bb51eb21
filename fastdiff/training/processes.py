"""One process or several, as torchrun and accelerate describe them in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Processes:
    """This process among the others.

    Attributes:
        rank: its index.
        world: how many there are.
        device: its device.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes when there are several."""
        if self.world == 1:
            return net
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(net, device_ids=ids)

    def largest(self, value: int) -> int:
        """The largest `value` of all processes."""
        if self.world == 1:
            return value
        held = torch.tensor(value, device=self.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def mean(self, value: float) -> float:
        """The mean of `value` over the processes."""
        if self.world == 1:
            return value
        held = torch.tensor(value, device=self.device)
        dist.all_reduce(held)
        return float(held) / self.world

    def wait(self) -> None:
        """Until every process has come here."""
        if self.world > 1:
            dist.barrier()


def join(device: str) -> Processes:
    """This process, joined to the group that a launcher announced in RANK and WORLD_SIZE.

    Raises:
        ValueError: for a device that torch does not know or that is not there.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return Processes(rank, world, chosen)


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"train: device must be a device that is there, got {name!r}: {reason}") from None
