"""Recordings that are kept: few, by use, bound to living modules, and nothing after a failure."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from fastdiff.engine.replay_cache import ReplayCache, addresses_of, layout_of


def test_one_entry_for_a_key_and_the_least_used_goes() -> None:
    cache: ReplayCache[str] = ReplayCache(most=2)
    module, made = nn.Linear(2, 2), []

    def entry(key: str) -> str:
        return cache.get(key, [module], lambda: made.append(key) or key)

    assert [entry(key) for key in "abaca"] == list("abaca")
    assert made == ["a", "b", "c"]
    assert entry("b") == "b" and made == ["a", "b", "c", "b"] and len(cache) == 2


def test_a_dead_module_takes_its_entries_along() -> None:
    cache: ReplayCache[object] = ReplayCache()
    module = nn.Linear(2, 2)
    cache.get("a", [module], object)
    del module
    gc.collect()
    cache.get("b", [], object)
    assert len(cache) == 1


def test_a_failure_leaves_nothing() -> None:
    cache: ReplayCache[object] = ReplayCache()

    def fails() -> object:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.get("a", [], fails)
    assert len(cache) == 0


def test_dropped_and_cleared() -> None:
    cache: ReplayCache[object] = ReplayCache()
    kept, gone = cache.get("a", [], object), cache.get("b", [], object)
    cache.drop(gone)
    assert cache.get("a", [], object) is kept and cache.get("b", [], object) is not gone
    cache.clear()
    assert len(cache) == 0


def test_addresses_change_with_tensors_not_with_values() -> None:
    module = nn.Linear(2, 2)
    before = addresses_of(module)
    with torch.no_grad():
        module.weight.mul_(2)
        module.weight.data.copy_(torch.zeros(2, 2))
    assert addresses_of(module) == before
    module.weight = nn.Parameter(torch.zeros(2, 2))
    assert addresses_of(module) != before


def test_layouts() -> None:
    x = torch.zeros(2, 3)
    assert layout_of(x) == layout_of(x + 1) != layout_of(x.double())
