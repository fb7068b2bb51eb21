"""What is available in this installation, and why the rest is not: the facts behind `fastdiff info`."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "safetensors", "tqdm", "triton", "tyro", "pillow", "accelerate", "tensorboard")
VARIABLES = (
    *("FASTDIFF_BACKEND", "FASTDIFF_CPU", "FASTDIFF_DEBUG", "FASTDIFF_WINNERS"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
)
ABSENT = "not installed"


def collect() -> dict[str, Any]:
    """All facts as one JSON-able dict: versions, devices, build, ops, fallbacks, models, systems, environment."""
    ops = _ops()
    return {
        "fastdiff": _version("fastdiff-torch"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "build": _build(),
        "ops": ops,
        "fallbacks": _fallbacks(ops),
        "winners": _winners(),
        "models": _models(),
        "systems": _systems(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ABSENT


def _devices() -> dict[str, str]:
    capability = torch.backends.cpu.get_cpu_capability()
    devices = {
        "cpu": f"{platform.machine()}, {capability}, {torch.get_num_threads()} of {os.cpu_count()} threads"
    }
    devices["cuda"] = _cuda()
    has_mps = torch.backends.mps.is_available()
    devices["mps"] = "available" if has_mps else "not available"
    return devices


def _cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but no usable device is found"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {', '.join(names)}"


def _build() -> dict[str, Any]:
    """Where the compiled part is, or why it is not there; and what the build wrote down about itself."""
    from fastdiff.ops import extension

    found = importlib.util.find_spec("fastdiff._C")
    facts: dict[str, Any] = {
        "extension": extension.MISSING or "loaded",
        "file": Path(found.origin).name if found is not None and found.origin else None,
    }
    if not extension.MISSING:
        facts["runs"] = extension.instruction_set()
    note = Path(__file__).with_name("_build_info.json")
    if note.is_file():
        built = json.loads(note.read_text(encoding="utf-8"))
        facts |= {f"built_{name}": _listed(value) for name, value in built.items()}
    return facts


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _ops() -> dict[str, dict[str, str]]:
    """Every op x backend: "available", or the reason why not."""
    from fastdiff.ops import dispatch

    dispatch.load()
    return {name: _states(backends) for name, backends in sorted(dispatch.registered().items())}


def _states(backends: tuple[Any, ...]) -> dict[str, str]:
    from fastdiff.ops import device, dispatch

    written = {backend.name: backend.missing or "available" for backend in backends}
    if not (device.INTERPRETED or torch.cuda.is_available()):
        written |= {
            name: f"{state}, not runnable here: no CUDA device is found"
            for name, state in (("cuda", "built"), ("triton", "written"))
            if written.get(name) == "available"
        }
    return {name: written.get(name, "not written for this op") for name in dispatch.BACKENDS}


def _fallbacks(ops: dict[str, dict[str, str]]) -> list[str]:
    """One sentence for each op that runs on plain torch although a faster CPU backend exists."""
    return [
        f"{op} runs on plain torch instead of C++: {states['cpp']}"
        for op, states in ops.items()
        if states["cpp"] not in ("available", "not written for this op")
    ]


def _winners() -> dict[str, Any]:
    """What `fastdiff doctor` found out about the devices: device -> op -> class -> backend, where it is used."""
    from fastdiff.ops import winners

    found, why = winners.read()
    if winners.ignored():
        found, why = {}, "ignored, because FASTDIFF_WINNERS is 0"
    return {"file": str(winners.file()), "note": why, "found": found}


def _models() -> list[str]:
    from fastdiff.model import known_models

    return known_models()


def _systems() -> list[str]:
    from fastdiff.systems import known_systems

    return known_systems()


def as_text(facts: dict[str, Any]) -> str:
    """The facts for people: sections of aligned lines."""
    lines = [f"fastdiff {facts['fastdiff']}, Python {facts['python']}, {facts['platform']}"]
    for title in ("packages", "devices", "build"):
        lines += _section(title, facts[title])
    lines += ["", "ops"]
    for op, states in facts["ops"].items():
        lines += [f"  {op}", *(f"    {name:<8}{state}" for name, state in states.items())]
    lines += ["", "fallbacks", *(f"  {line}" for line in facts["fallbacks"] or ["none"])]
    lines += ["", "winners", *_told(facts["winners"])]
    lines += ["", "models", f"  {', '.join(facts['models']) or 'none shipped'}"]
    lines += ["", "systems", f"  {', '.join(facts['systems']) or 'none shipped'}"]
    return "\n".join(lines + (_section("environment", facts["environment"]) if facts["environment"] else []))


def _told(winners: dict[str, Any]) -> list[str]:
    """Findings of the doctor, a line for each op and backend."""
    lines = [f"  none: {winners['note']}"] if winners["note"] else [f"  of {winners['file']}"]
    for device, ops in winners["found"].items():
        lines.append(f"  {device}")
        for op, won in ops.items():
            for backend in sorted(set(won.values())):
                classes = "; ".join(name for name, by in won.items() if by == backend)
                lines.append(f"    {op}: {backend} for {classes}")
    return lines


def _section(title: str, entries: dict[str, Any]) -> list[str]:
    width = max(len(name) for name in entries) + 2
    return ["", title, *(f"  {name:<{width}}{value}" for name, value in entries.items() if value is not None)]
