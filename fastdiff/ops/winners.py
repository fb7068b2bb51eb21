"""What `fastdiff doctor` found out on this machine: the fastest right backend per device, op and class of shapes.

The findings lie in one JSON file in the user's cache, with the versions they belong to; findings of other versions do
not count. The file is read once per process. `dispatch` asks the winner of a class first, before the backends in their
usual order; with ``FASTDIFF_WINNERS=0`` it does not look.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_LOG = logging.getLogger("fastdiff")
_FORMAT = 1
#: device -> op -> class of shapes -> backend
Winners = dict[str, dict[str, dict[str, str]]]


def file() -> Path:
    """Where the findings lie: ``$XDG_CACHE_HOME/fastdiff/winners.json``, usually below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "fastdiff" / "winners.json"


def stamp() -> dict[str, Any]:
    """The versions that findings belong to."""
    return {
        "format": _FORMAT,
        **{name: _version(name) for name in ("fastdiff-torch", "triton")},
        "torch": str(torch.__version__),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def read(path: Path | None = None) -> tuple[Winners, str]:
    """The findings, and why there are none: no file, findings of other versions, or a damaged file."""
    path = file() if path is None else path
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        known = {name: told[name] for name in stamp()}
        found = {
            device: {op: dict(won) for op, won in ops.items()} for device, ops in told["winners"].items()
        }
    except FileNotFoundError:
        return {}, "`fastdiff doctor` has not run here"
    except OSError as error:
        return {}, f"{path} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, f"{path} is damaged: run `fastdiff doctor` again"
    if known != stamp():
        return {}, f"{path} belongs to other versions: run `fastdiff doctor` again"
    return found, ""


def store(device: str, found: Mapping[str, Mapping[str, str]], path: Path | None = None) -> Path:
    """Write the findings of one device, beside those of other devices, complete or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = file() if path is None else path
    winners = read(path)[0] | {device: {op: dict(won) for op, won in found.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps({**stamp(), "winners": winners}, indent=1, sort_keys=True) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    forget()
    return path


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(kind: str, index: int | None = None) -> str:
    """The name under which findings of a device are kept."""
    if kind == "cuda":
        return torch.cuda.get_device_name(index)
    return processor() if kind == "cpu" else kind


def ignored() -> bool:
    """Whether ``FASTDIFF_WINNERS=0`` tells to choose as if nothing had been found out."""
    told = os.environ.get("FASTDIFF_WINNERS", "")
    if told not in ("", "0", "1"):
        raise ValueError(f"FASTDIFF_WINNERS: must be 0 or 1, got {told!r}")
    return told == "0"


@lru_cache(maxsize=1)
def _known() -> Winners:
    if ignored():
        return {}
    found, why = read()
    if why and file().exists():
        _LOG.warning("%s", why)
    return found


@lru_cache(maxsize=64)
def _here(kind: str, index: int | None) -> dict[str, dict[str, str]]:
    return _known().get(device_name(kind, index), {})


def here() -> list[tuple[str, dict[str, dict[str, str]]]]:
    """The findings (op -> class -> backend) about this machine's processor and about all other devices, by kind."""
    known = _known()
    if not known:
        return []
    own = processor()
    return [("cpu" if name == own else "cuda", found) for name, found in known.items()]


def forget() -> None:
    """Read the file again at the next question."""
    _known.cache_clear()
    _here.cache_clear()
    for told in _LISTENERS:
        told()


_LISTENERS: list[Callable[[], None]] = []


def on_change(told: Callable[[], None]) -> None:
    """Call this whenever the findings may have changed."""
    _LISTENERS.append(told)


def winner(op: str, shape_class: str, kind: str, index: int | None) -> str:
    """The fastest right backend of an op for a class of shapes on a device; empty where nobody has found out."""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        return ""  # a device that is only thought of
    return _here(kind, index).get(op, {}).get(shape_class, "")


def constant(function: Callable[..., Any]) -> None:
    """Tell torch.compile to ask a function while it traces, and to keep the answer.

    It sets what `torch.compiler.assume_constant_result` sets; that decorator would import the compiler with fastdiff.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]


constant(winner)
