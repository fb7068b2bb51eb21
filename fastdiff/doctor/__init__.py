"""The doctor: runs every kernel of every op on this machine against float64, times them, and keeps what won.

The work is done in a process of its own (`worker`), which a `supervisor` watches: a kernel that crashes or hangs is a
line of the report and not the end of it.
"""

from __future__ import annotations

from .diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
