"""What all tests share: in CI hypothesis draws the same examples every time, so that a failure belongs to a change.

Findings of the doctor in the user's cache decide nothing in a test; a test of them sets FASTDIFF_WINNERS itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("FASTDIFF_WINNERS", "0")
import pytest
import torch
from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small networks: several threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
