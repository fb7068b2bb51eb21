"""What all tests share: in CI hypothesis draws the same examples every time, so that a failure belongs to a change."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
