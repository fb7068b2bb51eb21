"""Systems on disk: `config.json`, which names the class and its options, beside `model.safetensors`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdiff.weights import bare, fill, find_folder, known, read_config, write_folder

#: Classes that a file may name, and the module each is in (imported when it is asked for).
SYSTEMS = {
    "HierarchicalVQVAE": "fastdiff.systems.vqvae",
    "VQVAE": "fastdiff.systems.vqvae",
    "LatentBridge": "fastdiff.systems.ou_bridge",
    "LatentPixelCNN": "fastdiff.systems.pixelcnn",
}


def save(
    system: nn.Module, folder: str | Path, *, dtype: str = "float32", meta: dict[str, Any] | None = None
) -> Path:
    """Write a system; the folder appears complete under its name or not at all.

    Args:
        system: an instance of one of `SYSTEMS` (or of a subclass that adds no options); `system.config` holds the
            options of its class.
        folder: where; an older model there is replaced.
        dtype: how the weights are stored: "float32", or "float16" or "bfloat16" at half the size.
        meta: JSON-able facts (where the weights come from); None: the system's own attribute `meta`, if it has one.

    Returns:
        The folder.

    Raises:
        ValueError: for another class, or weights that are not finite.
    """
    system = bare(system)
    name = next((kind.__name__ for kind in type(system).__mro__ if kind.__name__ in SYSTEMS), None)
    if name is None or not hasattr(system, "config"):
        raise ValueError(f"save: system must be one of {', '.join(SYSTEMS)}, got {type(system).__name__}")
    description = {
        "system": {"name": name, "config": system.config},
        "meta": getattr(system, "meta", {}) if meta is None else meta,
    }
    return write_folder(folder, system, description, dtype)


def known_systems() -> list[str]:
    """Names of the trained systems that come with the package."""
    return known("system")


def kind_of(name_or_path: str | Path) -> str | None:
    """The name of the class in a folder (or of a known name), None when it holds no system.

    Raises:
        ValueError: for an unknown name or a folder without a description.
    """
    entry = read_config(find_folder(name_or_path)).get("system")
    return entry.get("name") if isinstance(entry, dict) else None


def load(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> nn.Module:
    """Read a system: float32, in evaluation mode, without gradients.

    Args:
        name_or_path: a name of `known_systems`, a folder, the .safetensors file inside one, or the folder of a
            finished training run.
        device: where it goes.

    Returns:
        The system, with the attribute `meta` of the file.

    Raises:
        ValueError: for an unknown name (the known ones are listed), a pickle, a damaged folder, a folder that holds
            something else, weights that do not fit or are not finite.
    """
    folder = find_folder(name_or_path)
    config = read_config(folder)
    entry = config.get("system")
    if not isinstance(entry, dict) or entry.get("name") not in SYSTEMS:
        got = (
            entry.get("name")
            if isinstance(entry, dict)
            else "none (a model to sample from? use fastdiff.load)"
        )
        raise ValueError(f"load: system in {folder} must be one of {', '.join(SYSTEMS)}, got {got}")
    kind = getattr(importlib.import_module(SYSTEMS[entry["name"]]), entry["name"])
    try:
        system = kind(**entry["config"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"load: {folder} must hold the options of a {entry['name']}, got: {error!r}"
        ) from error
    system.meta = config.get("meta", {})
    return fill(system, folder, config).to(device)
