"""A training process for the tests that kill one: `python worker.py OUT STEPS CHECKPOINT_EVERY DROPOUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastdiff.training import Dataset, NetworkConfig, TrainConfig, train  # noqa: E402


def data() -> Dataset:
    images = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    return Dataset(images.to(torch.uint8), torch.arange(50) % 3, ("a", "b", "c"), "noise")


def config(out: str, steps: int, checkpoint_every: int, dropout: float) -> TrainConfig:
    network = NetworkConfig(
        channels=8,
        channel_mults=(1, 2),
        blocks=1,
        heads=2,
        groups=4,
        norm="rms",
        dropout=dropout,
        self_condition=True,
    )
    return TrainConfig(
        data="noise",
        out=out,
        steps=steps,
        batch_size=8,
        lr=2e-3,
        warmup=5,
        flip=True,
        offset_noise=0.1,
        network=network,
        log_every=1,
        checkpoint_every=checkpoint_every,
        resume=True,
        progress=False,
        amp="off",
        device="cpu",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(config(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])), data())
