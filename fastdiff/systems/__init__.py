"""The published systems, each of them a module with its own maths; saved and loaded by name."""

from __future__ import annotations

from fastdiff.systems.files import SYSTEMS, kind_of, known_systems, load, save

__all__ = ["SYSTEMS", "kind_of", "known_systems", "load", "save"]
