"""Systems on disk: loaded as they were saved, everything else refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fastdiff
from fastdiff import systems
from fastdiff.model import known_models
from fastdiff.nn import UNet
from fastdiff.systems.vqvae import VQVAE, CifarVQVAE


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(8, 4, channels=1, codebook_flavor="ema", codebook_options={"decay": 0.5})
    x = torch.randn(2, 1, 8, 8)
    vqvae(x)
    folder = systems.save(vqvae, tmp_path / "m", meta={"note": "test"})
    again = systems.load(folder)
    assert type(again) is VQVAE and again.config == vqvae.config and again.meta == {"note": "test"}
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in vqvae.state_dict().items())
    assert torch.equal(again(x).images, vqvae.eval()(x).images)


def test_a_subclass_is_stored_as_the_system_it_is_made_from(tmp_path: Path) -> None:
    assert type(systems.load(systems.save(CifarVQVAE(8, 4), tmp_path / "m", dtype="float16"))) is VQVAE


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save: system must be one of .*VQVAE.*, got Linear"):
        systems.save(torch.nn.Linear(2, 2), tmp_path / "m")
    with pytest.raises(ValueError, match="name_or_path must be a folder or a known model"):
        systems.load("nothing")
    folder = systems.save(CifarVQVAE(8, 4), tmp_path / "m")
    with pytest.raises(
        ValueError, match="must hold a model to sample from, got a VQVAE: use fastdiff.systems.load"
    ):
        fastdiff.load(folder)
    net = UNet(in_channels=1, channels=8, channel_mults=(1,), blocks=1)
    fastdiff.save(fastdiff.Model(net, fastdiff.Schedule.cosine(10), "v", (1, 8, 8)), tmp_path / "unet")
    with pytest.raises(
        ValueError, match=r"system in .* must be one of .*VQVAE.*, got none .*use fastdiff.load"
    ):
        systems.load(tmp_path / "unet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Other"}, "must be one of .*VQVAE.*, got Other"),
        ({"config": {"size": 1}}, "must hold the options of a VQVAE, got: .*size"),
        ({"config": {"num_codebook": 8, "dim_codebook": 5}}, "weights in .* must fit its config.json"),
    ],
)
def test_a_damaged_description(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = systems.save(CifarVQVAE(8, 4), tmp_path / "m")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "system": {**config["system"], **change}}))
    with pytest.raises(ValueError, match=message):
        systems.load(folder)


def test_the_shipped_systems_reconstruct_a_plain_square() -> None:
    assert {"fashion-vqvae", "fashion-hierarchical-vqvae"} <= set(systems.known_systems())
    assert not set(systems.known_systems()) & set(known_models())
    x = torch.full((1, 1, 32, 32), -1.0)
    x[..., 8:24, 8:24] = 1.0
    for name in ("fashion-vqvae", "fashion-hierarchical-vqvae"):
        out = systems.load(name)(x)
        assert (out.images - x).square().mean() < 0.05
