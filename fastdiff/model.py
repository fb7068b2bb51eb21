"""A trained model: network, schedule and what is needed to sample from it; loading and saving.

On disk a model is a folder with `config.json` and `model.safetensors`. The JSON holds the SHA-256 of the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from fastdiff.nn import UNet
from fastdiff.prediction import check_prediction
from fastdiff.schedule import Schedule

FORMAT = 1
ASSETS = Path(__file__).parent / "assets"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: Networks a config may name.
NETWORKS: dict[str, type[nn.Module]] = {"UNet": UNet}
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


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
    folder = Path(folder)
    raw = save_tensors(_weights(model.net, dtype))
    text = json.dumps(_describe(model, raw, dtype), indent=1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".partial-{folder.name}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _write_synced(partial / WEIGHTS, raw)
        _write_synced(partial / CONFIG, text.encode())
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _weights(net: nn.Module, dtype: str) -> dict[str, Tensor]:
    if dtype not in _DTYPES:
        raise ValueError(f"save: dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    state = {_plain(name): t.detach().cpu() for name, t in net.state_dict().items()}
    _check_finite(state, "save", "the network")
    stored = {
        n: (t.to(_DTYPES[dtype]) if t.is_floating_point() else t).contiguous() for n, t in state.items()
    }
    _check_finite(stored, "save", f"the network as {dtype}")
    return stored


def _plain(name: str) -> str:
    """A weight's name without what compilers and data-parallel wrappers put before it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod").removeprefix("module.")


def _bare(net: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile` and of data-parallel training."""
    for name in ("_orig_mod", "module"):
        net = getattr(net, name, net)
    return net


def _describe(model: Model, raw: bytes, dtype: str) -> dict[str, Any]:
    net = _bare(model.net)
    name = type(net).__name__
    if name not in NETWORKS or not hasattr(net, "config"):
        raise ValueError(f"save: model.net must be one of {', '.join(NETWORKS)}, got {name}")
    return {
        "format": FORMAT,
        "network": {"name": name, "config": net.config},
        "schedule": model.schedule.to_config(),
        "prediction": model.prediction,
        "shape": list(model.shape),
        "num_classes": model.num_classes,
        "class_names": list(model.class_names),
        "data_range": list(model.data_range),
        "stored_as": dtype,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "meta": model.meta,
    }


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _replace(partial: Path, folder: Path) -> None:
    """Put `partial` under the name `folder`; what was there is moved aside first and deleted last."""
    aside = folder.parent / f".old-{folder.name}-{os.getpid()}"
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def known_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in ASSETS.glob(f"*/{CONFIG}"))


def load(name_or_path: str | Path, *, device: torch.device | str = "cpu") -> Model:
    """Read a model, ready to sample: in evaluation mode, without gradients, float32.

    Args:
        name_or_path: name of a model of this package, a model folder, or the .safetensors file inside one.
        device: where the network goes.

    Raises:
        ValueError: for an unknown name (the known ones are listed), a pickle, a damaged or incomplete folder,
            weights that do not fit the config or are not finite.
    """
    folder = _find(name_or_path)
    config = _read_config(folder / CONFIG)
    state = _read_weights(folder / WEIGHTS, config)
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
    _fill(net, state, folder)
    net.eval().requires_grad_(False).to(device)
    return model


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise ValueError(
            f"load: {path} must be a safetensors model folder; pickles can run code and are refused"
        )
    if path.is_file():
        if path.open("rb").read(4).startswith(_PICKLE_MAGIC):
            raise ValueError(
                f"load: {path} must be safetensors, got a pickle or zip archive, which are refused"
            )
        return path.parent
    if path.is_dir():
        return path
    if str(name_or_path) in known_models():
        return ASSETS / str(name_or_path)
    known = ", ".join(known_models()) or "none"
    raise ValueError(
        f"load: name_or_path must be a folder or a known model ({known}), got {str(name_or_path)!r}"
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"load: {path} must be a readable JSON file, got: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"load: {path} must be a model description of format {FORMAT}")
    return config


def _read_weights(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"load: {path} must be a readable file, got: {error}") from error
    if raw.startswith(_PICKLE_MAGIC):
        raise ValueError(f"load: {path} must be safetensors, got a pickle or zip archive, which are refused")
    if hashlib.sha256(raw).hexdigest() != config.get("sha256"):
        raise ValueError(f"load: {path} must have the checksum of its {CONFIG}; it is cut short or changed")
    try:
        state = load_tensors(raw)
    except SafetensorError as error:
        raise ValueError(f"load: {path} must be a safetensors file, got: {error}") from error
    _check_finite(state, "load", str(path))
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _check_finite(state: dict[str, Tensor], place: str, what: str) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{place}: weights of {what} must be finite, got NaN or infinity in {name}")


def _build(name: str, options: dict[str, Any], folder: Path) -> nn.Module:
    if name not in NETWORKS:
        raise ValueError(
            f"load: network in {folder / CONFIG} must be one of {', '.join(NETWORKS)}, got {name!r}"
        )
    return NETWORKS[name](**options)


def _fill(net: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    try:
        net.load_state_dict({_plain(name): t for name, t in state.items()})
    except RuntimeError as error:
        raise ValueError(f"load: weights in {folder} must fit its {CONFIG}, got: {error}") from error
