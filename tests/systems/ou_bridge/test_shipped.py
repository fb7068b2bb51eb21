"""The bridge that comes with the package: drawn from by name, offline, with and without a mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fastdiff
from fastdiff import cli


def test_it_is_drawn_from_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    line = ["sample", "--model", "fashion-ou-bridge", "--num", "2", "--steps", "4", "--solver", "ddpm"]
    more = ["--json", "--no-progress", "--columns", "1", "--scale", "1"]
    assert cli.main([*line, *more, "--out", str(tmp_path / "one")]) == 0
    image = next((tmp_path / "one").glob("*.png"))
    assert cli.main([*line, *more, "--init", str(image), "--mask", "left", "--out", str(first)]) == 0
    summaries = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [s["images"] for s in summaries] == [2, 2] and first.is_file()
    assert cli.main([*line, *more, "--labels", "3", "--out", str(second)]) == 2
    assert "model without classes" in capsys.readouterr().err


def test_it_reconstructs_and_uses_many_codes() -> None:
    model = fastdiff.load("fashion-ou-bridge")
    drawn = fastdiff.sample(model, 10, num=8, solver="ddpm")
    assert drawn.shape == (8, 1, 32, 32) and len(model.net.vqvae.indices(drawn).unique()) > 40
    whole = fastdiff.sample(model, 3, num=8, x_init=drawn, mask=torch.ones(32, 32))
    torch.testing.assert_close(whole, model.net.reconstruct(drawn), atol=1e-4, rtol=1e-4)


def test_batch_invariant_images_do_not_depend_on_the_others() -> None:
    """The encoder and the decoder, too, see every image alone."""
    model = fastdiff.load("fashion-ou-bridge")
    images = 0.5 * torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(32, 32)
    mask[:, :16] = 1
    options = {"solver": "ddpm", "batch_invariant": True, "mask": mask}
    both = fastdiff.sample(model, 3, seeds=[5, 6], x_init=images, **options)
    alone = fastdiff.sample(model, 3, seeds=[6], x_init=images[1:], **options)
    assert torch.equal(both[1:], alone)
