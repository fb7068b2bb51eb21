"""Loads the compiled extension once, and keeps the reason when it is not there."""

from __future__ import annotations

import importlib


def _load() -> str:
    try:
        importlib.import_module("fastdiff._C")
    except ModuleNotFoundError as error:
        if error.name != "fastdiff._C":
            raise
        return "fastdiff._C was not built (no C++ compiler at installation, or FASTDIFF_NO_EXT was set)"
    except (ImportError, OSError) as error:
        return f"fastdiff._C was built but does not load: {error}"
    return ""


#: Why the C++ backend is not available; empty when it is.
MISSING = _load()
