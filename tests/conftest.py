"""What all tests share: nothing that one draws depends on which tests ran before it, in which process.

In CI hypothesis draws the same examples every time, so that a failure belongs to a change. Findings of the doctor in
the user's cache decide nothing in a test; a test of them sets FASTDIFF_WINNERS itself.
"""

from __future__ import annotations

import gc
import os
import zlib
from collections.abc import Iterator

os.environ.setdefault("FASTDIFF_WINNERS", "0")
import pytest
import torch
from hypothesis import settings

settings.register_profile("ci", derandomize=True, database=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """All that was imported stays; the search for garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Every test has random numbers of its own, the same alone, in another order, and on another worker."""
    torch.manual_seed(zlib.crc32(item.nodeid.encode()))


def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small networks: several threads would only wait for each other."""
    yield from _threads(1)


@pytest.fixture(scope="module")
def two_threads() -> Iterator[None]:
    """Where work is shared among threads, whatever OMP_NUM_THREADS says (`make test` runs two processes of one)."""
    yield from _threads(2)
