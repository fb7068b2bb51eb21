"""Match: the fusions, in the order in which they build on each other."""

from __future__ import annotations

from torch import fx

from .settings import Settings


def match(graph: fx.Graph, settings: Settings) -> None:
    """Replace what the engine knows by its own operations; the rest stays as it is."""
    graph.eliminate_dead_code()
