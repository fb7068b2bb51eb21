"""The doctor: checks every kernel of every op against float64 on this machine, times them, and stores the fastest.

The work is done in a process of its own (`worker`), which a `supervisor` watches: a kernel that crashes or hangs is a
line of the report and not the end of it.
"""

from __future__ import annotations

from .diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
