"""Checkpoints: a folder with one safetensors file and one JSON file, complete or absent.

A checkpoint is written into a folder of a temporary name, flushed to the disk and renamed. The JSON file holds the
SHA-256 of the tensors, so that a damaged one is noticed; then the one before it is used, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")
_TENSORS, _META = "state.safetensors", "state.json"


def write_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int = 2
) -> Path:
    """Write the checkpoint of `step` and delete all but the newest `keep`.

    Args:
        folder: where checkpoints live.
        step: number of finished steps.
        tensors: the state.
        meta: JSON-able facts beside it.
        keep: how many checkpoints to leave.

    Returns:
        The checkpoint's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / f"step-{step:08d}", folder / f".partial-{step:08d}-{os.getpid()}"
    raw = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    text = json.dumps({"format": FORMAT, "step": step, "sha256": _digest(raw), **meta}, indent=1)
    partial.mkdir()
    _write_synced(partial / _TENSORS, raw)
    _write_synced(partial / _META, text.encode())
    _delete(final)
    partial.rename(final)
    _sync_folder(folder)
    for _, old in list_checkpoints(folder)[:-keep]:
        _delete(old)
    return final


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, oldest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*") if (m := _NAME.fullmatch(p.name))]
    return sorted(found)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of one checkpoint folder.

    Raises:
        ValueError: naming the file, when one is missing, cut short or changed.
    """
    try:
        meta = json.loads((path / _META).read_text())
        raw = (path / _TENSORS).read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint: {path} must hold {_TENSORS} and {_META}, got: {error}") from error
    if meta.get("format") != FORMAT:
        raise ValueError(f"checkpoint: format of {path / _META} must be {FORMAT}, got {meta.get('format')!r}")
    if _digest(raw) != meta.get("sha256"):
        raise ValueError(f"checkpoint: {path / _TENSORS} must have the checksum of {_META}; it is damaged")
    return load(raw), meta


def read_newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint that is whole; None when there is none at all.

    A damaged one is passed over with a warning.

    Raises:
        ValueError: when there are checkpoints, but all are damaged.
    """
    errors = []
    for _, path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", RuntimeWarning, stacklevel=2)
            errors.append(str(error))
    if errors:
        raise ValueError(
            f"checkpoint: {folder} must hold a whole checkpoint; all are damaged: " + "; ".join(errors)
        )
    return None


def remove_partial(folder: Path) -> None:
    """Delete what a killed writer left behind."""
    for partial in folder.glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _delete(checkpoint: Path) -> None:
    """Remove a checkpoint: first its name, so that a kill leaves no half of one, then its files."""
    if checkpoint.exists():
        shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".partial-{checkpoint.name}")))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
