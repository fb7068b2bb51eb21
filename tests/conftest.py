"""What all tests share: in CI hypothesis draws the same examples every time, so that a failure belongs to a change.

Findings of the doctor in the user's cache decide nothing in a test; a test of them sets FASTDIFF_WINNERS itself.
"""

from __future__ import annotations

import os

os.environ.setdefault("FASTDIFF_WINNERS", "0")
from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
