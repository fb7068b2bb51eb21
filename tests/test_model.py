"""Model files: saved and loaded unchanged, and everything else refused in words."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fastdiff
from fastdiff import weights as module
from fastdiff.model import Model, known_models, load, save
from fastdiff.nn import UNet
from fastdiff.schedule import Schedule
from fastdiff.systems.files import known_systems

SMALL = {"in_channels": 1, "channels": 8, "channel_mults": (1,), "blocks": 1, "num_classes": 2}


def small(**fields: Any) -> Model:
    torch.manual_seed(0)
    defaults = {"num_classes": 2, "class_names": ("a", "b"), "meta": {"note": "test"}}
    return Model(UNet(**SMALL), Schedule.cosine(100), "v", (1, 8, 8), **{**defaults, **fields})


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace_weights(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Other weights with a right checksum."""
    import hashlib

    save_file(state, folder / "model.safetensors")
    rewrite(folder, sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    model = small()
    for path in (save(model, tmp_path / "m"), tmp_path / "m" / "model.safetensors", str(tmp_path / "m")):
        again = load(path)
        assert all(torch.equal(t, again.net.state_dict()[n]) for n, t in model.net.state_dict().items())
        for name in ("schedule", "prediction", "shape", "num_classes", "class_names", "data_range", "meta"):
            assert getattr(again, name) == getattr(model, name)
        assert not again.net.training
        assert not any(p.requires_grad for p in again.net.parameters())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_storage_is_half_as_large_and_loads_as_float32(tmp_path: Path, dtype: str) -> None:
    model = small()
    full, half = save(model, tmp_path / "full"), save(model, tmp_path / "half", dtype=dtype)
    sizes = [(f / "model.safetensors").stat().st_size for f in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    for name, value in load(half).net.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.net.state_dict()[name], atol=1e-5, rtol=2**-8)


class Compiled(torch.nn.Module):
    """Holds a network as `torch.compile` does."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = net


@pytest.mark.parametrize("wrap", [Compiled, lambda net: torch.nn.DataParallel(net, device_ids=[])])
def test_prefixes_of_wrappers_are_not_written(tmp_path: Path, wrap: Any) -> None:
    model = small()
    plain = model.net.state_dict()
    model.net = wrap(model.net)
    folder = save(model, tmp_path / "m")
    assert load_file(folder / "model.safetensors").keys() == plain.keys()
    assert load(folder).net.state_dict().keys() == plain.keys()


def test_saving_replaces_an_older_model(tmp_path: Path) -> None:
    save(small(), tmp_path / "m")
    save(small(meta={"note": "newer"}), tmp_path / "m")
    assert load(tmp_path / "m").meta == {"note": "newer"}
    assert os.listdir(tmp_path) == ["m"]


def test_a_failed_save_leaves_the_older_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(small(), tmp_path / "m")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, "_write_synced", fail)
    with pytest.raises(OSError, match="disk full"):
        save(small(meta={"note": "newer"}), tmp_path / "m")
    assert load(tmp_path / "m").meta == {"note": "test"}
    assert os.listdir(tmp_path) == ["m"]


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = save(small(), tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state["stem.bias"][1] = float("nan")
    replace_weights(folder, state)
    with pytest.raises(
        ValueError, match=r"load: weights of .* must be finite, got NaN or infinity in stem.bias"
    ):
        load(folder)
    model = small()
    with torch.no_grad():
        model.net.stem.weight[0] = float("inf")  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"save: weights of the network must be finite, .* stem.weight"):
        save(model, tmp_path / "n")
    with torch.no_grad():
        model.net.stem.weight[0] = 1e6  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="network as float16 must be finite"):
        save(model, tmp_path / "n", dtype="float16")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("position", [0, 50, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, position: int) -> None:
    folder = save(small(), tmp_path / "m")
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[position] ^= 4
    (folder / "model.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match=r"model.safetensors must have the checksum of its config.json"):
        load(folder)


def test_truncated_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = save(small(), tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cut short or changed"):
        load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model.safetensors must be a readable file"):
        load(folder)
    (folder / "config.json").write_text('{"format": 1,')
    with pytest.raises(ValueError, match=r"config.json must be a readable JSON file"):
        load(folder)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".bin"])
def test_pickles_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="pickles can run code and are refused"):
        load(path)


class Trap:
    """Unpickling one would end the test run."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_pickles_are_refused_by_content(tmp_path: Path) -> None:
    folder = save(small(), tmp_path / "m")
    weights = folder / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, weights)
    for path in (folder, weights):
        with pytest.raises(
            ValueError, match="must be safetensors, got a pickle or zip archive, which are refused"
        ):
            load(path)
    for protocol in (2, 3, 4, 5):
        weights.write_bytes(pickle.dumps(Trap(), protocol))
        with pytest.raises(ValueError, match="got a pickle or zip archive"):
            load(weights)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"must be a folder or a known model \(.*\), got 'fashoin'"
    ) as caught:
        load("fashoin")
    assert all(name in str(caught.value) for name in (*known_models(), *known_systems()))


def test_the_folder_of_a_run_stands_for_the_model_in_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match="run must hold a finished model, got a training run without one"):
        load(tmp_path / "run")
    folder = save(small(), tmp_path / "run" / "model")
    assert load(tmp_path / "run").folder == folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "must be a model description of format 1"),
        ({"network": {"name": "ViT", "config": {}}}, "network in .* must be one of UNet, got 'ViT'"),
        (
            {"network": {"name": "UNet", "config": {**SMALL, "widht": 3}}},
            "must describe a model, got: TypeError",
        ),
        (
            {"network": {"name": "UNet", "config": {**SMALL, "channels": 16}}},
            "weights in .* must fit its config.json",
        ),
        ({"prediction": "noise"}, "prediction must be one of eps, x0, v"),
        ({"shape": [8, 8]}, r"shape must be \(C, H, W\)"),
        ({"class_names": ["a"]}, "class_names must have num_classes = 2 entries, got 1"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = save(small(), tmp_path / "m")
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_network_without_config_cannot_be_saved(tmp_path: Path) -> None:
    model = small()
    model.net = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="model.net must be one of UNet, got Conv2d"):
        save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, bfloat16, got 'int8'"):
        save(small(), tmp_path / "m", dtype="int8")


def test_the_shipped_model() -> None:
    assert "fashion" in known_models()
    model = fastdiff.load("fashion")
    assert (model.shape, model.num_classes) == ((1, 32, 32), 10)
    assert model.class_names[9] == "Ankle boot"
    size = sum(path.stat().st_size for path in (module.ASSETS / "fashion").iterdir())
    assert size <= 8_000_000
