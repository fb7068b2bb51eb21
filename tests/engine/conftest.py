"""Every test compiles afresh, and fails where the engine gave up on a graph without being asked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _two_threads(two_threads: None) -> None:
    """Plans depend on the number of threads."""


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def fused(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The engine must not have left anything to eager torch."""
    yield
    assert [r.message for r in caplog.records if r.name == "fastdiff.engine"] == []
