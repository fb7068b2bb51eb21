"""Optimised time steps of a model: computed once from reference trajectories, then read from a small JSON file.

The file lies beside the model; where that folder cannot be written, in the user's cache. An entry's key is a hash of
the weights, the schedule and the options, so a model that changed never finds the steps of its predecessor.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from fastdiff.model import Model
from fastdiff.sampling.sample import sample
from fastdiff.sampling.source import ModelChoice, Source, resolve
from fastdiff.schedule import Schedule
from fastdiff.solvers import optimize_steps, timesteps_of
from fastdiff.weights import ASSETS

FILE = "optimized_steps.json"


def optimized_times(
    model: ModelChoice,
    steps: int,
    *,
    schedule: Schedule | str | None = None,
    prediction: str | None = None,
    shape: Sequence[int] | None = None,
    reference: int | None = None,
    num: int = 16,
    seed: int = 2**32,
    cache: bool = True,
) -> list[float]:
    """The times that `spacing="optimized"` visits; see `fastdiff.solvers.optimize_steps`.

    Args:
        model: As in `sample`; a network with classes is asked for all of them in turn, without guidance.
        steps: How many.
        schedule: As in `sample`.
        prediction: As in `sample`.
        shape: As in `sample`.
        reference: Steps of the DDIM trajectories that are followed; at least 60 and twice `steps` by default.
        num: Trajectories.
        seed: Seed of the first; far from those that images are usually drawn with.
        cache: Look into the files and write what was found. Networks without weights are never kept.

    Returns:
        Strictly falling list of `steps` times.
    """
    source = resolve(model, schedule, prediction, shape)
    limit = source.schedule.T if source.schedule.discrete else 10**6
    fine = min(limit, max(60, 2 * steps)) if reference is None else reference
    options = {"steps": steps, "reference": fine, "num": num, "seed": seed, "shape": list(source.shape)}
    key = _key(source, options) if cache else None
    kept = None if key is None else _read(model, key)
    times = kept if kept is not None else _found(source, steps, fine, num, seed)
    if key is not None and kept is None:
        _write(model, key, {**options, "times": times})
    return times


def _found(source: Source, steps: int, reference: int, num: int, seed: int) -> list[float]:
    times = timesteps_of(source.schedule, reference)
    times = times[source.schedule.alpha(times) > 0]
    labels = list(range(min(source.num_classes, num))) if source.num_classes else None
    states = sample(
        source.net,
        times.tolist(),
        num=num,
        shape=source.shape,
        schedule=source.schedule,
        prediction=source.prediction,
        clip=None,
        labels=labels,
        seed=seed,
        trajectory=True,
    )
    return optimize_steps(source.schedule, times.tolist(), states.cpu().numpy(), steps)


def _key(source: Source, options: dict[str, Any]) -> str | None:
    """Hash of everything the steps depend on; None where that cannot be told."""
    weights: dict[str, Tensor] = source.module.state_dict() if source.module is not None else {}
    if not weights:
        return None
    with suppress(ValueError):
        facts = {**options, "schedule": source.schedule.to_config(), "prediction": source.prediction}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(weights.items()):
            digest.update(name.encode() + tensor.detach().double().cpu().numpy().tobytes())
        return digest.hexdigest()
    return None


def _places(model: ModelChoice) -> Iterator[Path]:
    """Where steps may be kept: beside the model, then in the user's cache."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        yield (path if path.is_dir() else path.parent if path.is_file() else ASSETS / str(model)) / FILE
    elif isinstance(model, Model) and model.folder is not None:
        yield model.folder / FILE
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield Path(home) / "fastdiff" / FILE


def _entries(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is missing or damaged."""
    with suppress(OSError, ValueError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            return entries
    return {}


def _read(model: ModelChoice, key: str) -> list[float] | None:
    for path in _places(model):
        entry = _entries(path).get(key)
        if isinstance(entry, dict) and isinstance(entry.get("times"), list):
            return [float(t) for t in entry["times"]]
    return None


def _write(model: ModelChoice, key: str, entry: dict[str, Any]) -> None:
    for path in _places(model):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.write_text(
                json.dumps({**_entries(path), key: entry}, indent=1) + "\n", encoding="utf-8"
            )
            temporary.replace(path)
            return
