"""The file of the doctor's findings: written whole, read only where it belongs."""

from __future__ import annotations

import json
import logging

import pytest

from fastdiff.ops import winners

FOUND = {"attention": {"float16 1024x64": "triton"}}


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FASTDIFF_WINNERS", "1")
    winners.forget()
    yield
    winners.forget()


def test_what_is_stored_is_found_again_beside_other_devices(tmp_path):
    winners.store("A", FOUND)
    winners.store("B", {"vq_nearest": {}})
    assert winners.read() == ({"A": FOUND, "B": {"vq_nearest": {}}}, "")
    assert [path.name for path in (tmp_path / "fastdiff").iterdir()] == ["winners.json"]


def test_nobody_has_looked_yet():
    assert winners.read() == ({}, "`fastdiff doctor` has not run here")
    assert winners.winner("attention", "float16 1024x64", "cpu", None) == ""


@pytest.mark.parametrize("name", ["fastdiff-torch", "triton", "torch", "format"])
def test_findings_of_other_versions_do_not_count(name, caplog):
    path = winners.store(winners.device_name("cpu"), FOUND)
    assert winners.winner("attention", "float16 1024x64", "cpu", None) == "triton"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "0.0"}))
    winners.forget()
    with caplog.at_level(logging.WARNING, "fastdiff"):
        assert winners.winner("attention", "float16 1024x64", "cpu", None) == ""
    assert "belongs to other versions" in caplog.text
    winners.store("A", FOUND)
    assert winners.read() == ({"A": FOUND}, "")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"winners": 3}', '{"winners": {"A": 5}}', "\x00"])
def test_a_damaged_file_is_no_finding(text):
    path = winners.store("A", FOUND)
    path.write_text(text)
    found, why = winners.read()
    assert found == {} and "is damaged" in why


def test_a_failed_write_leaves_the_old_findings(monkeypatch):
    path = winners.store("A", FOUND)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(winners.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        winners.store("A", {})
    assert winners.read() == ({"A": FOUND}, "")
    assert [one.name for one in path.parent.iterdir()] == ["winners.json"]
