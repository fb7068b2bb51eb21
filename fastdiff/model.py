"""A trained model: network, schedule and what is needed to sample from it; loading and saving.

On disk a model is a folder with `config.json` and `model.safetensors`. The JSON holds the SHA-256 of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdiff import systems
from fastdiff.nn import UNet
from fastdiff.prediction import check_prediction
from fastdiff.schedule import Schedule
from fastdiff.weights import (
    CONFIG,
    bare,
    fill,
    find_folder,
    known,
    read_config,
    write_folder,
)

#: Networks a config may name.
NETWORKS: dict[str, type[nn.Module]] = {"UNet": UNet}


@dataclass
class Model:
    """A network and how to sample from it.

    Attributes:
        net: called as net(x, t, labels=None, x_self_cond=None).
        schedule: the noise schedule it was trained with.
        prediction: What it returns, one of `fastdiff.prediction.PREDICTIONS`.
        shape: (C, H, W) of one sample.
        num_classes: number of class labels, 0 without labels.
        class_names: one per class, or empty.
        data_range: smallest and largest value of the data.
        meta: JSON-able facts (where the weights come from).
        folder: where it was loaded from, or None.
    """

    net: nn.Module
    schedule: Schedule
    prediction: str
    shape: tuple[int, int, int]
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    data_range: tuple[float, float] = (-1.0, 1.0)
    meta: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check the parts against each other.

        Raises:
            ValueError: naming the part.
        """
        check_prediction(self.prediction, "Model")
        self.shape = tuple(int(n) for n in self.shape)  # type: ignore[assignment]
        self.class_names = tuple(self.class_names)
        self.data_range = tuple(float(v) for v in self.data_range)  # type: ignore[assignment]
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"Model: shape must be (C, H, W), each >= 1, got {self.shape}")
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"Model: class_names must have num_classes = {self.num_classes} entries, got {len(self.class_names)}"
            )


def save(model: Model, folder: str | Path, *, dtype: str = "float32") -> Path:
    """Write a model; the folder appears complete under its name or not at all.

    Args:
        model: its network must be one of `NETWORKS` with a `config`.
        folder: where; an older model there is replaced.
        dtype: how the weights are stored: "float32", or "float16" or "bfloat16" at half the size.

    Returns:
        The folder.

    Raises:
        ValueError: for a network that cannot be rebuilt from a config, or weights that are not finite.
    """
    return write_folder(folder, model.net, _describe(model), dtype)


def _describe(model: Model) -> dict[str, Any]:
    net = bare(model.net)
    name = type(net).__name__
    if name not in NETWORKS or not hasattr(net, "config"):
        raise ValueError(f"save: model.net must be one of {', '.join(NETWORKS)}, got {name}")
    return {
        "network": {"name": name, "config": net.config},
        "schedule": model.schedule.to_config(),
        "prediction": model.prediction,
        "shape": list(model.shape),
        "num_classes": model.num_classes,
        "class_names": list(model.class_names),
        "data_range": list(model.data_range),
        "meta": model.meta,
    }


def known_models() -> list[str]:
    """Names of the models that come with the package."""
    return known("network")


def load(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """Read a model, ready to sample: in evaluation mode, without gradients, float32.

    Args:
        name_or_path: name of a model of this package, a model folder, the .safetensors file inside one, or the
            folder of a finished training run.
        device: where the network goes.

    Raises:
        ValueError: for an unknown name (the known ones are listed), a pickle, a damaged or incomplete folder,
            weights that do not fit the config or are not finite.
    """
    folder = find_folder(name_or_path)
    config = read_config(folder)
    if "system" in config:
        return _of_system(folder, config["system"].get("name"), device)
    try:
        entry = config["network"]
        net = _build(entry["name"], entry["config"], folder)
        fields = ("prediction", "shape", "num_classes", "class_names", "data_range", "meta")
        model = Model(
            net,
            Schedule.from_config(config["schedule"]),
            **{name: config[name] for name in fields},
            folder=folder,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"load: {folder / CONFIG} must describe a model, got: {error!r}") from error
    fill(net, folder, config).to(device)
    return model


def _of_system(folder: Path, name: str, device: torch.device | str) -> Model:
    """A system as a model, when it is one to sample from by steps: it then has a schedule and a prediction."""
    system: Any = systems.load(folder, device=device)
    if not all(hasattr(system, part) for part in ("schedule", "prediction", "image_shape")):
        raise ValueError(
            f"load: {folder} must hold a model to sample from, got a {name}: use fastdiff.systems.load"
        )
    return Model(
        system, system.schedule, system.prediction, system.image_shape, meta=system.meta, folder=folder
    )


def _build(name: str, options: dict[str, Any], folder: Path) -> nn.Module:
    if name not in NETWORKS:
        raise ValueError(
            f"load: network in {folder / CONFIG} must be one of {', '.join(NETWORKS)}, got {name!r}"
        )
    return NETWORKS[name](**options)
