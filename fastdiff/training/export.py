"""Extracts a model from the folder of a run, while it is running or after it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from fastdiff.model import Model
from fastdiff.nn import UNet
from fastdiff.schedule import Schedule
from fastdiff.training.checkpoint import read_newest


def model_of_run(folder: str | Path) -> Model:
    """The model with the averaged weights of the newest checkpoint of a run.

    Args:
        folder: the `out` of the run.

    Raises:
        ValueError: when there is no checkpoint, none that is whole, or it is no run of a diffusion network.
    """
    found = read_newest(Path(folder) / "checkpoints")
    if found is None:
        raise ValueError(f"model_of_run: folder must be a run with checkpoints, got {str(folder)!r}")
    tensors, meta = found
    data, config = meta["data"], meta["config"]
    if "prediction" not in config:
        raise ValueError(
            f"model_of_run: folder must be a run of a diffusion network, got another in {str(folder)!r}"
        )
    net = UNet(in_channels=data["shape"][1], num_classes=data["num_classes"], **config["network"])
    net.load_state_dict(part_of(tensors, "ema/"))
    net.eval().requires_grad_(False)
    return Model(
        net,
        Schedule.named(config["schedule"], T=config["timesteps"]),
        config["prediction"],
        tuple(data["shape"][1:]),  # type: ignore[arg-type]
        data["num_classes"],
        tuple(meta.get("class_names", ())),
        meta=run_facts(meta["step"], config),
    )


def run_facts(step: int, config: dict[str, Any]) -> dict[str, Any]:
    """What a model file tells about its training; no paths of the machine."""
    return {
        "steps": step,
        "train": {k: v for k, v in config.items() if k not in ("out", "init", "vqvae", "resume", "progress")},
    }


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
