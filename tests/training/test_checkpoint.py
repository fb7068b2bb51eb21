"""Checkpoints: whole or absent, and damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdiff.training import checkpoint as module
from fastdiff.training.checkpoint import (
    list_checkpoints,
    read_checkpoint,
    read_newest,
    remove_partial,
    write_checkpoint,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def written(folder: Path, *steps: int, keep: int = 2) -> Path:
    for step in steps:
        path = write_checkpoint(
            folder, step, {"a": TENSORS["a"] + step, "b": TENSORS["b"]}, {"note": step}, keep
        )
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors, meta = read_checkpoint(written(tmp_path, 7))
    assert torch.equal(tensors["a"], TENSORS["a"] + 7)
    assert (tensors["b"].item(), meta["note"], meta["step"]) == (3, 7, 7)


def test_memory_formats_do_not_matter(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tensors, _ = read_checkpoint(write_checkpoint(tmp_path, 1, {"w": weight}, {}))
    assert torch.equal(tensors["w"], weight)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 30, 4)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [4, 30]
    found = read_newest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000004", "step-00000030"]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    written(tmp_path, 5, 5)
    assert len(list_checkpoints(tmp_path)) == 1


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read_newest(tmp_path / "nothing") is None


def flip_bit(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)


def damage(path: Path, kind: str) -> None:
    tensors, meta = path / "state.safetensors", path / "state.json"
    if kind == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:-3])
    elif kind == "missing":
        tensors.unlink()
    elif kind == "json":
        meta.write_text(meta.read_text()[:-5])
    elif kind == "format":
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 99}))
    else:
        flip_bit(tensors, int(kind))


@pytest.mark.parametrize("kind", ["0", "9", "-1", "-20", "truncated", "missing", "json", "format"])
def test_damage_is_noticed_and_the_one_before_used_with_a_warning(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, 1, 2)
    damage(path, kind)
    with pytest.raises(ValueError, match="step-00000002"):
        read_checkpoint(path)
    with pytest.warns(RuntimeWarning, match="trying the checkpoint before it"):
        found = read_newest(tmp_path)
    assert found is not None
    assert found[1]["step"] == 1


def test_when_all_are_damaged_it_refuses(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for _, path in list_checkpoints(tmp_path):
        damage(path, "truncated")
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="all are damaged"):
        read_newest(tmp_path)


@pytest.mark.parametrize("name", ["_write_synced", "_sync_folder"])
def test_a_failed_write_leaves_nothing_under_a_final_name(
    tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    written(tmp_path, 1)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    if name == "_write_synced":
        monkeypatch.setattr(module, name, fail)
        with pytest.raises(OSError, match="disk full"):
            written(tmp_path, 2)
        assert [step for step, _ in list_checkpoints(tmp_path)] == [1]
        remove_partial(tmp_path)
    else:
        monkeypatch.setattr(module, name, fail)
        with pytest.raises(OSError, match="disk full"):
            written(tmp_path, 2)
        read_checkpoint(tmp_path / "step-00000002")
    assert not list(tmp_path.glob(".partial-*"))
