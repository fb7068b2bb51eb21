"""Python's garbage collector, held back while a graph is traced and planned.

Tracing makes tens of thousands of objects that live on. Each time their number has grown by a quarter, the collector
walks over all objects of the process, those of torch and of the network among them, and finds nothing to free.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """No automatic collection inside the block; afterwards the collector is as it was found."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
