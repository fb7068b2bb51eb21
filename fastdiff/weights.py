"""Folders of one `config.json` and one `model.safetensors`: written completely or not at all, verified when read.

The JSON holds the SHA-256 of the weights. Pickles can run code and are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

FORMAT = 1
ASSETS = Path(__file__).parent / "assets"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def write_folder(folder: str | Path, net: nn.Module, description: dict[str, Any], dtype: str) -> Path:
    """Write the weights of a network and what describes it; the folder appears complete or not at all.

    Args:
        folder: where; an older model there is replaced.
        net: its weights are stored under the names they have without wrappers.
        description: JSON-able; format, dtype and checksum are added.
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        ValueError: for another dtype, or weights that are not finite.
    """
    folder = Path(folder)
    raw = save_tensors(_weights(net, dtype))
    facts = {"stored_as": dtype, "sha256": hashlib.sha256(raw).hexdigest()}
    text = json.dumps({"format": FORMAT, **description, **facts}, indent=1)
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


def bare(net: nn.Module) -> nn.Module:
    """The network inside the wrappers of `torch.compile` and of data-parallel training."""
    for name in ("_orig_mod", "module"):
        net = getattr(net, name, net)
    return net


def known(*kinds: str) -> list[str]:
    """Names of what comes with the package and has one of `kinds` ("network", "system") in its description."""
    described = {p.parent.name: json.loads(p.read_text()) for p in ASSETS.glob(f"*/{CONFIG}")}
    return sorted(name for name, config in described.items() if any(kind in config for kind in kinds))


def find_folder(name_or_path: str | Path) -> Path:
    """The folder that the name of something shipped, a folder or a .safetensors file inside one stands for.

    The folder of a training run stands for the `model` in it.

    Raises:
        ValueError: for a pickle, a run that is not finished, or an unknown name (the known ones are listed).
    """
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
        return _model_of_run(path)
    names = known("network", "system")
    if str(name_or_path) in names:
        return ASSETS / str(name_or_path)
    raise ValueError(
        f"load: name_or_path must be a folder or a known model ({', '.join(names) or 'none'}), "
        f"got {str(name_or_path)!r}"
    )


def _model_of_run(folder: Path) -> Path:
    """The folder itself, or the finished model inside it when it is that of a training run."""
    if (folder / CONFIG).exists() or not (folder / "checkpoints").is_dir():
        return folder
    if (folder / "model" / CONFIG).exists():
        return folder / "model"
    raise ValueError(
        f"load: {folder} must hold a finished model, got a training run without one; "
        "go on with `fastdiff train --resume`"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The description in a folder.

    Raises:
        ValueError: naming the file, when it is missing, no JSON or of another format.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"load: {path} must be a readable JSON file, got: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"load: {path} must be a model description of format {FORMAT}")
    return config


def fill(net: nn.Module, folder: Path, config: dict[str, Any]) -> nn.Module:
    """Load the weights of a folder into a network: float32, in evaluation mode, without gradients.

    Raises:
        ValueError: naming the file, for weights that are damaged, not finite, or do not fit.
    """
    state = _read_weights(folder / WEIGHTS, config)
    try:
        net.load_state_dict({_plain(name): t for name, t in state.items()})
    except RuntimeError as error:
        raise ValueError(f"load: weights in {folder} must fit its {CONFIG}, got: {error}") from error
    return net.eval().requires_grad_(False)


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
