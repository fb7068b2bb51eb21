"""fastdiff: fast, reproducible sampling and training of diffusion models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import engine, nn, ops, rng, solvers, systems
    from .engine import compile, refresh
    from .guidance import Guidance
    from .model import Model, load, save
    from .ops.dispatch import use_backend
    from .profiling import profile
    from .sampling.batches import sample_batches
    from .sampling.sample import sample
    from .schedule import Schedule
    from .solvers import StepTable

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(("engine", "nn", "ops", "rng", "solvers", "systems"), ""),
    **dict.fromkeys(("compile", "refresh"), "engine"),
    **dict.fromkeys(("Model", "load", "save"), "model"),
    **dict.fromkeys(("sample", "sample_batches"), "sampling"),
    "Guidance": "guidance",
    "profile": "profiling",
    "Schedule": "schedule",
    "StepTable": "solvers",
    "use_backend": "ops.dispatch",
}
__all__ = [
    "Guidance",
    "Model",
    "Schedule",
    "StepTable",
    "__version__",
    "compile",
    "engine",
    "load",
    "nn",
    "ops",
    "profile",
    "refresh",
    "rng",
    "sample",
    "sample_batches",
    "save",
    "solvers",
    "systems",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for at first use (PEP 562), so that `import fastdiff` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'fastdiff' has no attribute {name!r}")
    home = _HOME[name]
    value = importlib.import_module(f".{home or name}", __name__)
    if home:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
