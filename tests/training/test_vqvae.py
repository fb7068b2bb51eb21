"""Training of autoencoders: learns, logs, resumes bit for bit, ends as a system."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastdiff import systems
from fastdiff.cli.options import parse
from fastdiff.nn.codebook import FSQ, EMACodebook, ResidualCodebook
from fastdiff.systems.vqvae import VQVAE, HierarchicalVQVAE
from fastdiff.training import Dataset, model_of_run, train
from fastdiff.training.preview import write_pairs
from fastdiff.training.vqvae import (
    HierarchicalNetwork,
    HierarchicalVQVAEConfig,
    HierarchicalVQVAETask,
    VQVAEConfig,
    VQVAENetwork,
    VQVAETask,
)

RUN: dict[str, Any] = {
    **{"data": "shapes", "steps": 12, "batch_size": 8, "warmup": 3, "checkpoint_every": 4, "log_every": 4},
    **{"amp": "off", "progress": False, "lr": 5e-3},
}
FLAT = VQVAENetwork(num_codebook=16, dim_codebook=4, codebook_options={"decay": 0.9, "revive": 0.2})
DEEP = HierarchicalNetwork(levels=2, width=8, layers=1, groups=4, num_codebook=16, dim_codebook=4)
KINDS = [
    (VQVAEConfig(out="", network=FLAT, **RUN), VQVAETask, VQVAE),
    (HierarchicalVQVAEConfig(out="", network=DEEP, **RUN), HierarchicalVQVAETask, HierarchicalVQVAE),
]


@pytest.mark.parametrize(("config", "task", "kind"), KINDS)
def test_a_run_ends_as_a_system_and_resumes_bit_for_bit(
    config: Any, task: Any, kind: type, shapes: Dataset, tmp_path: Path
) -> None:
    whole = dataclasses.replace(config, out=str(tmp_path / "whole"), sample_every=12)
    train(whole, shapes, task=task)
    broken = dataclasses.replace(config, out=str(tmp_path / "broken"), steps=8, lr_schedule="constant")
    unbroken = dataclasses.replace(broken, out=str(tmp_path / "unbroken"), steps=12)
    train(broken, shapes, task=task)
    train(dataclasses.replace(broken, steps=12, resume=True), shapes, task=task)
    train(unbroken, shapes, task=task)
    found = [systems.load(c.folder / "model") for c in (broken, unbroken, whole)]
    assert all(type(system) is kind for system in found)
    state = found[1].state_dict()
    assert all(torch.equal(t, state[n]) for n, t in found[0].state_dict().items())
    assert found[2].meta["steps"] == 12 and found[2].meta["train"]["lr"] == 5e-3
    assert (whole.folder / "samples" / "step-00000012.png").is_file()


@pytest.mark.parametrize(("config", "task", "kind"), KINDS)
def test_the_error_falls_and_the_log_tells_it(
    config: Any, task: Any, kind: type, shapes: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(config, out=str(tmp_path), steps=100, log_every=10, checkpoint_every=100)
    train(config, shapes, task=task)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["error"] < 0.5 * lines[0]["error"]
    names = (
        ["perplexity", "usage"] if kind is VQVAE else ["perplexity_0", "perplexity_1", "usage_0", "usage_1"]
    )
    assert all(name in lines[-1] for name in names)


def test_a_run_starts_from_a_system_of_the_same_options(shapes: Dataset, tmp_path: Path) -> None:
    config, task, _ = KINDS[0]
    config = dataclasses.replace(config, out=str(tmp_path / "first"), steps=1)
    train(config, shapes, task=task)
    with pytest.raises(ValueError, match="folder must be a run of a diffusion network"):
        model_of_run(config.out)
    init = str(tmp_path / "first" / "model")
    after = dataclasses.replace(config, out=str(tmp_path / "second"), init=init, lr=1e-12)
    net = train(after, shapes, task=task)
    first = systems.load(init).state_dict()
    torch.testing.assert_close(net.decode[0].weight, first["decode.0.weight"])
    other = dataclasses.replace(after, out=str(tmp_path / "third"), network=VQVAENetwork(num_codebook=8))
    with pytest.raises(ValueError, match="init must be a VQVAE with the same options"):
        train(other, shapes, task=task)


def test_pairs_stand_below_each_other(tmp_path: Path) -> None:
    from PIL import Image

    write_pairs(torch.ones(3, 1, 2, 4), -torch.ones(3, 1, 2, 4), tmp_path / "p.png", columns=2)
    picture = torch.from_numpy(np.array(Image.open(tmp_path / "p.png")))
    assert picture[:, 0].tolist() == [255, 255, 0, 0, 255, 255, 0, 0]
    assert picture[4, 4:].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("fsq levels 4 4", FSQ),
        ("ema decay 0.9 revive 0.2", EMACodebook),
        ("residual stages 3", ResidualCodebook),
    ],
)
def test_every_kind_of_codebook_can_be_asked_for_on_the_command_line(
    shapes: Dataset, tmp_path: Path, words: str, kind: type[nn.Module]
) -> None:
    flavor, *options = words.split()
    line = ["--data", "x", "--out", str(tmp_path / "run"), "--steps", "1", "--amp", "off", "--no-progress"]
    line += ["--network.num-codebook", "16", "--network.dim-codebook", "2"]
    line += ["--network.codebook-flavor", flavor, "--network.codebook-options", *options]
    config = parse(VQVAEConfig, line, "train vqvae")
    assert isinstance(train(config, shapes, VQVAETask).codebook, kind)
